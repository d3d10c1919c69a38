"""Every photograph that docs/how-to/own_data.md names is stored, changed or refused as it says."""

import io
import re
import struct
import zlib

import numpy as np
import PIL.Image
import pillow_heif
import pytest
import tifffile
from own_folders import (
    SIZE,
    agree,
    between,
    build,
    column,
    deep,
    encoded,
    facts,
    label,
    npy,
    photographs,
    picture,
    put,
    stored,
    usual,
)

from deeplab_tf.doctor.dataset import check_dataset

# ---- photographs

pillow_heif.register_heif_opener()


def exif(orientation: int) -> PIL.Image.Exif:
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    return tags


def frames(kind: str) -> bytes:
    others = [PIL.Image.fromarray(picture(seed)) for seed in (7, 8)]
    return encoded(picture(6), kind, save_all=True, append_images=others)


def tiff(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, photometric="minisblack")
    return stream.getvalue()


def transparent(seed: int) -> np.ndarray:
    return np.concatenate([picture(seed), picture(seed + 1)[..., :1]], axis=-1)


def cut_off() -> bytes:
    whole = encoded(picture(0), "JPEG")
    return whole[: len(whole) // 2] + b"\xff\xd9"


# What a photograph is -> (ending, contents of three).
SAME = {
    "a JPEG or PNG of 8 bits": (".jpg", [encoded(picture(s), "JPEG") for s in range(3)]),
    "grey": (".png", [encoded(picture(s)[..., 0], "PNG") for s in range(3)]),
    "transparent": (".png", [encoded(transparent(s), "PNG") for s in range(3)]),
    "of 16 bits": (".png", [encoded(deep(s), "PNG") for s in range(3)]),
}
CHANGED = {
    "a TIFF, BMP or WEBP of 8 bits": (".tif", [encoded(picture(s), k) for s, k in enumerate(("TIFF", "BMP", "WEBP"))]),
    "a HEIC or AVIF": (".heic", [encoded(picture(s), k) for s, k in enumerate(("HEIF", "AVIF", "HEIF"))]),
    "a GIF or TIFF of several frames": (".gif", [frames("GIF") for _ in range(3)]),
    "of floats": (".tif", [tiff(deep(s).astype(np.float32) / 7) for s in range(3)]),
    "a TIFF or .npy of several bands": (".tif", [tiff(deep(0, 5)), npy(deep(1, 5)), tiff(deep(2, 5))]),
}
TOLD = {
    "transparent": "4 photographs: the transparency is left out",
    "a GIF or TIFF of several frames": "4 photographs: the first frame or page of several is used",
    "of 16 bits": "3 bands of uint16; values of",
    "of floats": "3 bands of float32; values of",
    "a TIFF or .npy of several bands": "5 bands of uint16; values of",
}
TURNED = "turned by EXIF by a quarter, with an upright label"
UNFIT = {
    "turned by EXIF, and its label fits both ways": (encoded(picture(0), "PNG", exif=exif(3)), "--exif=apply"),
    "of one value everywhere": (encoded(picture(0) * 0 + 9, "PNG"), "without contrast: every pixel is 9"),
    "cut off": (cut_off(), "cut off: it announces 40 rows"),
    "of other bits or bands than the rest of the set": (encoded(deep(0), "PNG"), "photographs of several kinds"),
}
LARGE = "larger than 178,956,970 pixels"


def test_every_photograph_is_tried():
    assert set(column("photographs")) == {*SAME, *CHANGED, TURNED, *UNFIT, LARGE}


@pytest.mark.parametrize("kind", [*SAME, *CHANGED])
def test_a_photograph_that_is_read(my_data, kind, capsys):
    ending, contents = {**SAME, **CHANGED}[kind]
    photographs(my_data, ending, contents)
    assert build() == 0
    told = TOLD.get(kind)
    assert (told or "Written") in capsys.readouterr().out
    for name, content in zip("abc", contents, strict=True):
        # .npy is stored as .npy
        assert (stored("train")[name][0] == content) == (kind in SAME or content.startswith(b"\x93NUMPY"))
    agree()
    if kind == "a TIFF or .npy of several bands":
        image = facts()["image"]
        assert (image["channels"], len(image["range"]), len(image["mean"])) == (5, 5, 5)
        for seed, name in enumerate("abc"):
            np.testing.assert_array_equal(np.load(io.BytesIO(stored("train")[name][0])), deep(seed, 5))


def test_a_photograph_that_is_turned(my_data, capsys):
    usual(my_data)
    put(my_data / "images/train/a.png", picture(0), exif=exif(6))
    put(my_data / "labels/train/a.png", label(0, (SIZE[1], SIZE[0])))
    assert build() == 0
    assert "turned upright" in capsys.readouterr().out
    upright = np.array(PIL.Image.open(io.BytesIO(stored("train")["a"][0])))
    np.testing.assert_array_equal(upright, np.rot90(picture(0), -1))


@pytest.mark.parametrize("kind", UNFIT)
def test_a_photograph_that_is_refused(my_data, kind, capsys):
    content, words = UNFIT[kind]
    usual(my_data)
    (my_data / "images" / "train" / "a.png").write_bytes(content)
    assert build() == 1
    assert words in capsys.readouterr().err
    assert check_dataset("my_data").count("error") >= 1
    if words.startswith("--exif"):
        assert build("--exif=apply") == 0


def test_bands_and_ranges_that_are_named(my_data):
    asked = re.findall(r"`(--(?:value_range|bands|shown_bands)=\S+?)`", between("photographs_text"))
    photographs(my_data, ".png", [encoded(transparent(seed), "PNG") for seed in range(3)])
    assert build(*asked) == 0
    image = facts()["image"]
    assert (image["channels"], image["range"], image["shown"]) == (4, [[100.0, 4000.0]], [3, 0, 1])
    assert image["bands"] == ["red", "green", "blue", "nir"]


def test_a_large_photograph(my_data, capsys):
    usual(my_data)
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    (my_data / "images" / "train" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert build() == 1
    assert "--max_image_pixels" in capsys.readouterr().err
