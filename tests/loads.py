"""A server under load: honest clients, hostile ones beside them, and its end while all of them ask.

  python tests/loads.py --clients=200 --seconds=60

prints how many requests were answered, the seconds that 95 of 100 took without and with the hostile clients, and the
memory of the server with its processes. tests/test_serving_load.py runs a short form.
"""

import argparse
import asyncio
import base64
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import PIL.Image

PREDICT = b"/v1/models/deeplab:predict"


def drawn(image: PIL.Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def request(body: bytes, path: bytes = PREDICT) -> bytes:
    """Returns a request as it goes over the wire."""
    head = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (path, len(body)) + body


def instances(*contents: bytes) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(content).decode()} for content in contents]}).encode()


def honest() -> bytes:
    """Returns the request of an honest client: a photograph of 120 x 160 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    photograph = PIL.Image.fromarray(pixels).resize((160, 120), PIL.Image.Resampling.BICUBIC)
    return request(instances(drawn(photograph, "JPEG")))


def tiled_tiff() -> bytes:
    """Returns a TIFF of 10 x 10 pixels that announces tiles of 40,000 x 40,000."""
    tags = [
        (256, 10),
        (257, 10),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 40_000),
        (323, 40_000),
        (324, 200),
        (325, 60),
    ]
    entries = b"".join(
        number.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little") for number, value in tags
    )
    head = b"II*\0\x08\0\0\0" + len(tags).to_bytes(2, "little") + entries + bytes(4)
    return head.ljust(200, b"\0") + bytes(60)


def hostile() -> dict[str, bytes]:
    """Returns the requests of hostile clients, one of each kind: small ones, or allowed ones, that are much work."""
    pixel = drawn(PIL.Image.new("L", (1, 1)), "PNG")
    return {
        "a picture of one row": request(instances(drawn(PIL.Image.new("L", (2_000_000, 1)), "PNG"))),
        "5,000 pictures of a pixel": request(instances(*[pixel] * 5_000)),
        "15 MB of empty lists": request(b'{"instances": [%s[]]}' % (b"[]," * 5_000_000)),
        "a TIFF of large tiles": request(instances(tiled_tiff())),
    }


@dataclasses.dataclass
class Results:
    """What clients got: seconds to each answer, and what was not answered with 200."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)

    @property
    def most(self) -> float:
        """Returns the seconds that 95 of 100 answers took at most."""
        return float(np.quantile(self.seconds, 0.95))


async def answered(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Returns the status of an answer, and whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = re.search(r"content-length: (\d+)", head)
    assert length, head
    await reader.readexactly(int(length[1]))
    return int(head.split(" ", 2)[1]), "connection: close" not in head


async def client(port: int, content: bytes, ended: asyncio.Event, results: Results) -> None:
    """Sends a request again and again until the event, or until the server says that the connection closes.

    Whoever was connected before the server ended has to be answered; who connects after that is refused.
    """
    while not ended.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            if not ended.is_set():
                results.faults.append(repr(error))
            return
        try:
            stays = True
            while stays and not ended.is_set():
                start = time.perf_counter()
                writer.write(content)
                status, stays = await answered(reader)
                results.seconds.append(time.perf_counter() - start)
                if status != 200:
                    results.faults.append(str(status))
        except (OSError, asyncio.IncompleteReadError) as error:
            results.faults.append(repr(error))
        finally:
            writer.close()


@contextlib.contextmanager
def server(checkpoint: str, *flags: str) -> Iterator[tuple[int, subprocess.Popen]]:
    """Runs a server for the duration of the context, and yields its port and its process."""
    command = [sys.executable, "-m", "deeplab_tf.tools.cli", "serve", f"--checkpoint={checkpoint}", "--port=0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        for line in process.stdout:
            if found := re.search(r"Page: http://127\.0\.0\.1:(\d+)/", line):
                yield int(found[1]), process
                break
        else:
            raise AssertionError("the server did not start")
    finally:
        process.kill()
        process.wait()


def memory(process: int) -> float:
    """Returns the memory of a process and those that it started, in MB."""
    children = pathlib.Path(f"/proc/{process}/task").glob("*/children")
    numbers = [process, *(int(number) for file in children for number in file.read_text().split())]
    pages = 0
    for number in numbers:
        with contextlib.suppress(OSError):
            pages += int(pathlib.Path(f"/proc/{number}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def load(port: int, count: int, seconds: float, enemies: dict[str, bytes], process: int):
    """Returns the results of honest clients, those of each kind of hostile ones, and the memory in MB over the time."""
    ended, results = asyncio.Event(), Results()
    others = {name: Results() for name in enemies}
    tasks = [asyncio.create_task(client(port, honest(), ended, results)) for _ in range(count)]
    tasks += [asyncio.create_task(client(port, enemies[name], ended, others[name])) for name in enemies]
    used = []
    for _ in range(10):
        await asyncio.sleep(seconds / 10)
        used.append(memory(process))
    ended.set()
    await asyncio.gather(*tasks)
    return results, others, used


async def end(port: int, count: int, process: subprocess.Popen) -> Results:
    """Returns the results of clients that ask while the server is told to end (SIGTERM)."""
    ended, results = asyncio.Event(), Results()
    tasks = [asyncio.create_task(client(port, honest(), ended, results)) for _ in range(count)]
    while len(results.seconds) < count:
        await asyncio.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    ended.set()
    await asyncio.gather(*tasks)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--checkpoint", default="shapes_resnet")
    given = parser.parse_args()
    with server(given.checkpoint, "--nolog_requests") as (port, process):
        asyncio.run(load(port, 4, 2, {}, process.pid))  # graphs are compiled
        alone, _, used = asyncio.run(load(port, given.clients, given.seconds, {}, process.pid))
        print(f"alone: {len(alone.seconds) / given.seconds:.1f} requests/s, 95 of 100 in {alone.most:.2f} s")
        print(f"  failed {len(alone.faults)} {sorted(set(alone.faults))[:5]}, MB {used[0]:.0f} to {used[-1]:.0f}")
        beside, others, used = asyncio.run(load(port, given.clients, given.seconds, hostile(), process.pid))
        rate, times = len(beside.seconds) / given.seconds, beside.most / alone.most
        print(f"beside hostile ones: {rate:.1f} requests/s, 95 of 100 in {beside.most:.2f} s ({times:.2f} times)")
        print(f"  failed {len(beside.faults)} {sorted(set(beside.faults))[:5]}, MB {min(used):.0f} to {max(used):.0f}")
        for name, found in others.items():
            took = statistics.median(found.seconds) if found.seconds else float("nan")
            print(f"  {name}: {len(found.seconds)} answers {sorted(set(found.faults))}, median {took:.2f} s")
        last = asyncio.run(end(port, min(given.clients, 100), process))
        print(f"SIGTERM: {len(last.seconds)} answered, {len(last.faults)} failed {sorted(set(last.faults))[:5]}")
        print(f"status {process.wait(90)}")


if __name__ == "__main__":
    main()
