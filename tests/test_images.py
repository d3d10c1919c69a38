"""Decoding whatever people call an image, the demo's resize rule, and nearest label resizing."""

import io
import pathlib
import struct
import sys
import warnings
import zlib

import numpy as np
import PIL.features
import PIL.Image
import pillow_heif
import pytest
import tensorflow as tf

from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import (
    jpeg_bytes,
    nearest_indices,
    png_bytes,
    read_image,
    resize_labels,
    resize_longest,
    write_png,
)

pillow_heif.register_heif_opener()


def picture(height: int = 40, width: int = 57, seed: int = 0) -> np.ndarray:
    """Random pixels in blocks of 8, so that JPEG keeps them apart."""
    grid = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3))
    return grid.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)


PICTURE = picture()
RGB = PIL.Image.fromarray(PICTURE)
GREY = np.asarray(RGB.convert("L"))


def encoded(image: PIL.Image.Image, kind: str, **options) -> bytes:
    """Returns the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(values: np.ndarray) -> np.ndarray:
    """Returns [h, w, 3] of [h, w]."""
    return np.repeat(values[..., None], 3, axis=-1)


def refused(content: bytes, *, name: str = "photo.jpg") -> str:
    """Returns the message of the error, which names the file and is one line."""
    with pytest.raises(DeepLabError) as error:
        read_image(content, name=name)
    message = str(error.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    return message


# ---- read_image: what is refused


def test_zero_bytes():
    assert "0 bytes" in refused(b"")


def test_text_called_jpg(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("This is no photograph.\n")
    with pytest.raises(DeepLabError, match=r"notes\.jpg: not an image \(begins with b'This is '\)"):
        read_image(path)


@pytest.mark.parametrize(("kind", "kept"), [("JPEG", 0.5), ("JPEG", 0.95), ("PNG", 0.5), ("PNG", 0.95)])
def test_truncated(kind, kept):
    content = encoded(PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, PICTURE.shape, np.uint8)), kind)
    assert "truncated" in refused(content[: int(kept * len(content))])


def test_png_with_a_flipped_bit():
    content = bytearray(encoded(RGB, "PNG"))
    content[len(content) // 2] ^= 1
    assert "damaged" in refused(bytes(content))


def test_folder(tmp_path):
    with pytest.raises(DeepLabError, match="cannot be read .*directory.*expected an image file"):
        read_image(tmp_path)


def test_missing(tmp_path):
    with pytest.raises(DeepLabError, match=r"nothing\.jpg: cannot be read .No such file"):
        read_image(str(tmp_path / "nothing.jpg"))


def test_decompression_bomb(monkeypatch):
    content = encoded(RGB, "PNG")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", PICTURE.shape[0] * PICTURE.shape[1] // 2 - 1)
    assert "too large to be a photograph" in refused(content)
    # Pillow warns from the limit on and refuses from twice the limit on: large photographs are no news.
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", PICTURE.shape[0] * PICTURE.shape[1] - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(content), PICTURE)


def test_no_interpreter_is_started_for_postscript():
    assert "not an image" in refused(encoded(RGB, "EPS"))


def test_every_picture_is_opened_as_one_of_the_formats():
    """Pillow would have Ghostscript run what begins as PostScript, whatever its name, in a record or a label too."""
    root = pathlib.Path(__file__).parents[1]
    files = [file for folder in ("deeplab_tf", "tools") for file in (root / folder).rglob("*.py")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    opening = [line for line in lines if "Image.open(" in line and "np.array(PIL.Image.open(...))" not in line]
    assert len(opening) > 10 and [line for line in opening if "formats=" not in line] == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "HEIF", "AVIF"])
def test_damage_is_a_deeplab_error_or_a_picture(kind):
    random = np.random.default_rng(7)
    whole = encoded(PIL.Image.fromarray(picture(17, 23)), kind)
    for trial in range(120):
        content = bytearray(whole)
        for position in random.integers(0, min(len(content), 300), random.integers(1, 6)):
            content[position] = random.integers(0, 256)
        content = content[: random.integers(1, len(content))] if trial % 3 == 0 else content
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                image = read_image(bytes(content))
            except DeepLabError as error:
                assert "\n" not in str(error)
            else:
                assert image.dtype == np.uint8
                assert image.ndim == 3 and image.shape[-1] == 3 and image.size


# ---- read_image: modes


def transparent_palette() -> bytes:
    """A PNG whose 16 palette entries have 16 degrees of transparency."""
    return encoded(RGB.quantize(16), "PNG", transparency=bytes(range(0, 256, 16)))


MODES = {
    "rgb png": (encoded(RGB, "PNG"), PICTURE),
    "rgb bmp": (encoded(RGB, "BMP"), PICTURE),
    "rgb tiff": (encoded(RGB, "TIFF"), PICTURE),
    "rgb ppm": (encoded(RGB, "PPM"), PICTURE),
    "lossless webp": (encoded(RGB, "WEBP", lossless=True), PICTURE),
    "grey": (encoded(RGB.convert("L"), "PNG"), grey(GREY)),
    "grey with a transparent value": (encoded(RGB.convert("L"), "PNG", transparency=int(GREY[0, 0])), grey(GREY)),
    "grey jpeg": (encoded(PIL.Image.new("L", (16, 16), 77), "JPEG"), np.full((16, 16, 3), 77)),
    "rgb with a transparent colour": (encoded(RGB, "PNG", transparency=tuple(map(int, PICTURE[0, 0]))), PICTURE),
    "palette": (encoded(RGB.quantize(16), "PNG"), np.asarray(RGB.quantize(16).convert("RGB"))),
    "palette with a transparent colour": (
        encoded(RGB.quantize(16), "PNG", transparency=3),
        np.asarray(RGB.quantize(16).convert("RGB")),
    ),
    "palette with transparency": (transparent_palette(), np.asarray(RGB.quantize(16).convert("RGB"))),
    "1 bit": (encoded(RGB.convert("1"), "PNG"), grey(np.asarray(RGB.convert("1")).astype(np.uint8) * 255)),
    "16-bit grey": (encoded(PIL.Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), grey(GREY)),
    "16-bit grey, dark": (encoded(PIL.Image.fromarray(np.full((5, 4), 200, np.uint16)), "PNG"), np.ones((5, 4, 3))),
    "16-bit grey tiff": (encoded(PIL.Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"), grey(GREY)),
    "32-bit grey of bytes": (encoded(PIL.Image.fromarray(GREY.astype(np.int32)), "TIFF"), grey(GREY)),
    "float grey": (encoded(PIL.Image.fromarray(GREY.astype(np.float32)), "TIFF"), grey(GREY)),
}


@pytest.mark.parametrize("mode", MODES)
def test_mode(mode):
    content, expected = MODES[mode]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(content)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_dropped(mode):
    layers = [GREY] if mode == "LA" else [PICTURE[..., c] for c in range(3)]
    alpha = np.arange(GREY.size).reshape(GREY.shape) % 256
    content = encoded(PIL.Image.fromarray(np.stack([*layers, alpha], axis=-1).astype(np.uint8)), "PNG")
    assert PIL.Image.open(io.BytesIO(content)).mode == mode
    np.testing.assert_array_equal(read_image(content), grey(GREY) if mode == "LA" else PICTURE)


def sixteen_bit_png(values: np.ndarray) -> bytes:
    """A 16-bit RGB PNG of uint16 [h, w, 3], which Pillow cannot write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_rgb():
    values = np.random.default_rng(1).integers(0, 65536, (9, 14, 3)).astype(np.uint16)
    image = read_image(sixteen_bit_png(values))
    # Pillow takes the upper byte.
    assert np.abs(image - values / 257.0).max() <= 1.0
    np.testing.assert_array_equal(read_image(sixteen_bit_png(PICTURE.astype(np.uint16) * 257)), PICTURE)


def test_a_float_picture_with_holes():
    values = np.full((4, 6), 100, np.float32)
    values[0] = [np.nan, np.inf, -np.inf, -5, 300, 0.6]
    image = read_image(encoded(PIL.Image.fromarray(values), "TIFF"))
    assert image[0, :, 0].tolist() == [0, 255, 0, 0, 255, 1]


def test_cmyk():
    content = encoded(RGB.convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert PIL.Image.open(io.BytesIO(content)).mode == "CMYK"
    image = read_image(content)
    assert image.shape == PICTURE.shape
    assert np.abs(image.astype(int) - PICTURE).mean() < 3


def test_jpeg_is_decoded_as_pillow_does(tmp_path):
    path = tmp_path / "photo.jpg"
    RGB.save(path, quality=80)
    np.testing.assert_array_equal(read_image(path), np.asarray(PIL.Image.open(path)))
    np.testing.assert_array_equal(read_image(path.read_bytes()), np.asarray(PIL.Image.open(path)))


def test_jpeg_of_a_photograph(shared):
    import tensorflow as tf

    path = shared / "real/voc_mini/JPEGImages/2011_000003.jpg"
    image = read_image(path)
    np.testing.assert_array_equal(image, np.asarray(PIL.Image.open(path)))
    accurate = tf.io.decode_jpeg(path.read_bytes(), dct_method="INTEGER_ACCURATE")
    np.testing.assert_array_equal(image, accurate)


def test_the_first_of_a_phone_s_two_pictures():
    content = encoded(RGB, "MPO", save_all=True, append_images=[PIL.Image.fromarray(picture(seed=1))], quality=100)
    assert PIL.Image.open(io.BytesIO(content)).format == "MPO"
    np.testing.assert_array_equal(read_image(content), np.asarray(PIL.Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_picture_of_a_phone_or_the_web(kind, tmp_path):
    lossy = encoded(PIL.Image.fromarray(picture(48, 64)), kind, quality=95)
    assert np.abs(read_image(lossy).astype(int) - picture(48, 64)).mean() < 8


def test_heic_is_turned_once():
    """A phone writes the turning twice, in EXIF and in a box of HEIC."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    content = encoded(PIL.Image.fromarray(picture(48, 64)), "HEIF", quality=95, exif=exif.tobytes())
    assert b"irot" in content
    image = read_image(content)
    assert image.shape == (64, 48, 3)
    assert np.abs(image.astype(int) - np.rot90(picture(48, 64), -1)).mean() < 8


def test_what_heic_and_avif_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "needs pillow-heif: pip install 'deeplab_tf[heic]', or save it as JPEG" in refused(encoded(RGB, "HEIF"))
    monkeypatch.setattr(PIL.features, "check", lambda feature: False)
    assert "pip install 'pillow>=11.3'" in refused(encoded(RGB, "AVIF"))


def test_one_pixel():
    image = read_image(encoded(PIL.Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"))
    assert image.tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_the_first_of_several_frames(kind):
    colours = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]
    frames = [PIL.Image.new("RGB", (12, 8), colour) for colour in colours]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    assert PIL.Image.open(io.BytesIO(content)).n_frames == 3
    np.testing.assert_array_equal(read_image(content), np.asarray(frames[0]))


def test_the_result_can_be_written_to():
    for content in (encoded(RGB, "PNG"), encoded(RGB.convert("L"), "PNG")):
        image = read_image(content)
        image[0, 0] = 0
        assert image.flags.c_contiguous


# ---- read_image: EXIF

# How a camera stores the upright picture under each orientation (EXIF 2.3, table of tag 0x0112).
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


def exif(orientation: int) -> bytes:
    """An EXIF block with nothing but the orientation."""
    block = PIL.Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(orientation):
    stored = np.ascontiguousarray(STORED[orientation](PICTURE))
    content = encoded(PIL.Image.fromarray(stored), "PNG", exif=exif(orientation))
    np.testing.assert_array_equal(read_image(content), PICTURE)


def test_exif_orientation_of_a_jpeg():
    stored = PIL.Image.fromarray(np.ascontiguousarray(STORED[6](PICTURE)))
    image = read_image(encoded(stored, "JPEG", quality=95, subsampling=0, exif=exif(6)))
    assert image.shape == PICTURE.shape
    assert np.abs(image.astype(int) - PICTURE).mean() < 3


@pytest.mark.parametrize("block", [b"Exif\0\0garbage", exif(6)[:-6], exif(6)[:16], exif(9), exif(0)])
def test_damaged_exif_does_not_spoil_a_good_picture(block):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(encoded(RGB, "PNG", exif=block))
    assert sorted(image.shape) == sorted(PICTURE.shape)
    assert image.sum() == PICTURE.sum()


# ---- resize_longest


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((375, 500), (384, 513)),
        ((500, 375), (513, 384)),
        ((513, 513), (513, 513)),
        ((100, 100), (513, 513)),
        ((1, 1), (513, 513)),
        ((1, 5000), (1, 513)),
        ((5000, 1), (513, 1)),
        ((300, 5000), (30, 513)),  # 30.78 is truncated
        ((6, 8), (384, 513)),
    ],
)
def test_resize_longest(size, expected):
    image = resize_longest(np.zeros((*size, 3), np.uint8), 513)
    assert (image.dtype, image.shape) == (np.uint8, (*expected, 3))


def test_resize_longest_is_the_demo_s():
    width, height = RGB.size
    ratio = 1.0 * 31 / max(width, height)
    size = (int(ratio * width), int(ratio * height))
    demo = np.asarray(RGB.resize(size, PIL.Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(resize_longest(PICTURE, 31), demo)
    assert resize_longest(PICTURE, 57) is PICTURE


# ---- nearest_indices, resize_labels


@pytest.mark.parametrize(
    ("size_in", "size_out", "expected"),
    [
        (6, 4, [0, 2, 3, 5]),  # official_release.md 1.1, measured
        (6, 3, [0, 3, 5]),
        (6, 11, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (6, 1, [0]),
        (1, 3, [0, 0, 0]),
        (1, 1, [0]),
    ],
)
def test_nearest_indices(size_in, size_out, expected):
    assert nearest_indices(size_in, size_out).tolist() == expected


def test_nearest_indices_are_tensorflow_s():
    import tensorflow as tf

    random = np.random.default_rng(3)
    for _ in range(60):
        size_in, size_out = map(int, random.integers(1, 700, 2))
        columns = tf.range(size_in)[None, None, :, None]
        resized = tf.raw_ops.ResizeNearestNeighbor(images=columns, size=[1, size_out], align_corners=True)
        np.testing.assert_array_equal(nearest_indices(size_in, size_out), resized[0, 0, :, 0])


def test_resize_labels():
    labels = np.arange(6 * 4).reshape(6, 4)
    np.testing.assert_array_equal(resize_labels(labels, 4, 7), labels[[0, 2, 3, 5]][:, [0, 1, 1, 2, 2, 3, 3]])
    assert resize_labels(labels, 6, 4) is labels
    assert resize_labels(labels.astype(np.int32), 3, 9).dtype == np.int32


# ---- writing


@pytest.mark.parametrize("array", [PICTURE, GREY], ids=["colours", "grey"])
def test_written_pictures_come_back(array, tmp_path):
    for path in (tmp_path / "a.b.png", str(tmp_path / "other.png")):
        write_png(array, path)
        write_png(array, path)  # in place of the one before
        np.testing.assert_array_equal(np.asarray(PIL.Image.open(path)), array)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.b.png", "other.png"]


PICTURES = {
    "photograph": np.random.default_rng(1).integers(0, 256, (37, 53, 3), np.uint8),
    "grey": np.random.default_rng(1).integers(0, 256, (37, 53), np.uint8),
    "one pixel": np.array([[200]], np.uint8),
    "turned": np.random.default_rng(1).integers(0, 256, (53, 37, 3), np.uint8).transpose(1, 0, 2),
}


@pytest.mark.parametrize("case", PICTURES)
def test_a_png_gives_the_picture_back(case):
    content, picture = png_bytes(PICTURES[case]), PICTURES[case]
    image = PIL.Image.open(io.BytesIO(content))
    assert image.mode == ("L" if picture.ndim == 2 else "RGB")
    np.testing.assert_array_equal(np.asarray(image), picture)
    np.testing.assert_array_equal(tf.io.decode_png(content).numpy().reshape(picture.shape), picture)


def test_a_png_with_a_palette():
    indices = np.random.default_rng(1).integers(0, 4, (20, 30), np.uint8)
    colours = np.array([(1, 2, 3), (255, 0, 0), (9, 99, 199), (0, 0, 0)], np.uint8)
    image = PIL.Image.open(io.BytesIO(png_bytes(indices, colours.tobytes())))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), indices)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colours[indices])


def test_a_png_of_other_numbers():
    with pytest.raises(TypeError, match="a picture of float32: expected uint8"):
        png_bytes(np.zeros((2, 2), np.float32))


def test_a_jpeg_to_look_at():
    written = np.asarray(PIL.Image.open(io.BytesIO(jpeg_bytes(PICTURE))))
    assert written.shape == PICTURE.shape
    assert np.abs(written.astype(int) - PICTURE).mean() < 3


def test_a_jpeg_as_large_as_there_are():
    image = PIL.Image.open(io.BytesIO(jpeg_bytes(np.zeros((4, 70_000, 3), np.uint8))))
    assert image.size == (65_500, 3)


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    write_png(GREY, tmp_path / "a.png")

    def full(self, content):
        with self.open("wb") as file:
            file.write(content[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_png(PICTURE, tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "a.png")), GREY)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
