"""Requests wait before they are decoded, and take turns by the pixels that their headers announce."""

import asyncio
import base64
import io
import json

import numpy as np
import PIL.Image
import pytest
from golden import golden_image
from loads import tiled_tiff
from networks import SMALL

pytest.importorskip("starlette", reason="the extra `serve` is not installed")

from deeplab_tf.serving.announced import header_size, picture_pixels, request_pixels  # noqa: E402
from deeplab_tf.serving.clients import Client  # noqa: E402
from deeplab_tf.serving.gate import Gate  # noqa: E402
from deeplab_tf.serving.limits import Limits  # noqa: E402
from deeplab_tf.serving.reading import Settings, read_request, request_limits  # noqa: E402

LIMITS = Limits(max_pixels=100_000, max_images=3)


def picture(kind: str, height: int = 21, width: int = 34, **options) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(golden_image("a", height, width)).save(stream, kind, **options)
    return stream.getvalue()


def asked(*contents: bytes) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(content).decode()} for content in contents]}).encode()


# ---- the gate


async def session(gate: Gate, requests: list[tuple[str, int]], cancelled: int | None = None) -> list[str]:
    """Returns the order in which requests of (client, pixels) come in, while one that is in holds all of the gate."""
    order = []

    async def enter(name: str, port: int, pixels: int) -> None:
        async with gate.entered(Client(name, port=port), pixels):
            order.append(name)
            await asyncio.sleep(0)

    async with gate.entered(Client("first"), 10**9):
        tasks = []
        for port, (name, pixels) in enumerate(requests):
            tasks.append(asyncio.create_task(enter(name, port, pixels)))
            await asyncio.sleep(0)
        if cancelled is not None:
            tasks[cancelled].cancel()
        assert (len(gate), order) == (len(requests), [])
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(gate) == 0
    async with gate.entered(Client("last"), 10**9):  # it is empty again
        return order


def test_a_place_that_comes_free_goes_to_the_client_whose_turn_it_is():
    requests = [("much", 1), ("much", 1), ("much", 1), ("gone", 1), ("other", 1)]
    found = asyncio.run(session(Gate(1, 100), requests, cancelled=3))
    assert found == ["much", "other", "much", "much"]


def test_turns_count_pixels_and_not_requests():
    """A client of four times the pixels gets a fourth of the requests; counted by requests they would alternate."""
    requests = [("large", 4)] * 4 + [("small", 1)] * 8
    found = asyncio.run(session(Gate(1, 100), requests))
    assert found == ["large", "small", "small", "small", "small", "large", "small", "small", "small", "small"] + [
        "large",
        "large",
    ]


def test_what_is_in_at_a_time_is_limited_by_its_pixels_too():
    async def run() -> list[tuple[str, int]]:
        gate, seen, release = Gate(4, 10), [], asyncio.Event()

        async def enter(name: str, pixels: int) -> None:
            async with gate.entered(Client(name), pixels):
                seen.append((name, len(gate)))
                await release.wait()

        tasks = []
        for name, pixels in (("a", 6), ("b", 4), ("c", 5), ("d", 1)):
            tasks.append(asyncio.create_task(enter(name, pixels)))
            await asyncio.sleep(0)
        assert [name for name, _ in seen] == ["a", "b"]  # c does not fit, and d does not overtake it
        tasks[2].cancel()
        await asyncio.sleep(0)
        assert len(gate) == 1
        tasks[1].cancel()  # one of four pixels goes, and there is room for the one that waits
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [name for name, _ in seen] == ["a", "b", "d"]
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        return seen

    asyncio.run(run())


# ---- what is announced


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "JPEG", "TIFF"])
def test_sizes_of_headers(kind):
    assert header_size(picture(kind)) == (21, 34)
    assert header_size(picture(kind, 300, 1)) == (300, 1)


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"quality": 80}, {"quality": 80, "exif": b"Exif\0\0" + bytes(9)}]
)
def test_sizes_of_webp(options):
    assert header_size(picture("WEBP", **options)) == (21, 34)


def test_sizes_of_other_headers():
    assert header_size(picture("JPEG", progressive=True, exif=b"Exif\0\0" + bytes(60_000))) == (21, 34)
    assert header_size(tiled_tiff()) == (10, 10)
    stream = io.BytesIO()
    np.save(stream, np.zeros((5, 7, 4), np.uint16))
    assert header_size(stream.getvalue()) == (5, 7)
    PIL.Image.fromarray(np.zeros((3, 4), np.uint8)).save(stream := io.BytesIO(), "TIFF", big_tiff=True)
    assert header_size(stream.getvalue()) == (3, 4)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "JPEG", "TIFF", "WEBP"])
def test_headers_that_are_cut_short(kind):
    content = picture(kind)
    for length in range(64):
        assert header_size(content[:length]) in (None, (21, 34), (0, 0))
        assert 1 <= picture_pixels(content[:length], LIMITS) <= LIMITS.max_pixels


def test_a_request_counts_what_its_pictures_announce():
    body = asked(picture("PNG"), picture("JPEG", 10, 10))
    assert request_pixels(body, LIMITS, 3) == 21 * 34 + 100
    assert request_pixels(body.replace(b"/", b"\\/"), LIMITS, 3) == 21 * 34 + 100  # as some write a slash
    assert request_pixels(body.replace(b": ", b":"), LIMITS, 3) == 21 * 34 + 100
    large = picture("JPEG", exif=b"Exif\0\0" + bytes(40_000))  # its size comes after what is looked at first
    assert request_pixels(asked(large), LIMITS, 3) == 21 * 34
    lists = json.dumps({"instances": [golden_image("a", 30, 40).tolist()]}).encode()
    assert abs(request_pixels(lists, LIMITS, 3) - 1200) < 100


@pytest.mark.parametrize(
    "body",
    [
        asked(*[picture("PNG")] * 4),
        asked(b"no picture"),
        asked(picture("PNG", 1000, 1000)),
        asked(picture("PNG")).replace(b"b64", b"b\\u00364"),
        b'{"instances": [{"b64": "iVBOR',
        b'"b64"' * 3,
    ],
    ids=["many", "none", "large", "escaped", "cut", "marks"],
)
def test_a_request_that_does_not_tell_counts_as_much_as_it_may_have(body):
    assert request_pixels(body, LIMITS, 3) == LIMITS.max_pixels


def test_pixels_are_counted_as_they_are_read():
    """As the network gets them: with its padding, and no row so thin that it costs nothing."""
    settings = Settings(SMALL, None, 1_000_000, 64, 65)
    limits = request_limits(settings)
    body = asked(picture("PNG", 1, 400), picture("PNG", 70, 70))
    images = read_request(body, settings).images
    assert request_pixels(body, limits, 3) == sum(limits.pixels(*image.shape[:2]) for image in images) > 33 * 400 + 4900
