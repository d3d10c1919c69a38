"""Photographs as records hold them: every format, depth, number of bands and orientation, without loss or refused."""

import dataclasses
import io
import json
import pathlib
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from commands import finished
from PIL import Image

from deeplab_tf.catalog.datasets import DATASETS, Dataset, dataset_json, parse_dataset
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.data import packing, photograph_facts, photographs
from deeplab_tf.data.build import BuildOptions, build_records
from deeplab_tf.data.masks import LabelRules
from deeplab_tf.data.pairs import Pair
from deeplab_tf.data.photographs import PhotographOptions, PhotographRules
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops import deep_png
from deeplab_tf.ops.images import read_image
from deeplab_tf.ops.network_pictures import read_photograph
from deeplab_tf.ops.photograph_files import open_photograph
from deeplab_tf.ops.photographs import ALPHA, FRAMES, Reading, upright
from deeplab_tf.ops.value_range import scaled, stored
from deeplab_tf.tools import build_data

CASES = pathlib.Path(__file__).parent / "cases" / "own_data"
RULES = LabelRules(3, 255, DATASETS["shapes"].palette[:3])
FACTS = Dataset("drawn", 3, 255, ("rest", "cat", "dog"), DATASETS["shapes"].palette[:3], {}, "pascal")
RANDOM = np.random.default_rng(0)
DEEP = RANDOM.integers(0, 65536, (20, 30, 4), np.uint16)
RGB = RANDOM.integers(0, 256, (20, 30, 3), np.uint8)


def encoded(picture: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(content, kind, **options)
    return content.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    content = io.BytesIO()
    tifffile.imwrite(content, array, **options)
    return content.getvalue()


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def pair(folder: pathlib.Path, name: str, content: bytes, shape: tuple[int, int] | None) -> Pair:
    (folder / name).write_bytes(content)
    label = folder / f"{pathlib.PurePath(name).stem}_label.png"
    if shape:
        Image.fromarray(RANDOM.integers(0, 3, shape, np.uint8)).save(label)
    return Pair(str(folder / name), str(label) if shape else None, pathlib.PurePath(name).stem)


def packed(one: Pair, rules: PhotographRules = photographs.PLAIN) -> packing.Packed:
    result = packing.pack(one, RULES, rules)
    assert isinstance(result, packing.Packed), result
    return result


def fault(one: Pair, rules: PhotographRules = photographs.PLAIN) -> str:
    result = packing.pack(one, RULES, rules)
    assert isinstance(result, list)
    (line,) = result
    return line


def examples(folder: pathlib.Path) -> list:
    found = []
    for file in sorted(folder.glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            found += [tf.train.Example.FromString(record).features.feature]
    return found


def build(case: str, output: pathlib.Path, *flags: str) -> int:
    arguments = ["--dataset=folder", f"--root={CASES / case}", f"--output_dir={output}", "--num_processes=1", *flags]
    return finished(build_data, *arguments)


# ---- the cases


def test_sixteen_bit(tmp_path, capsys):
    assert build("sixteen_bit", tmp_path / "out") == 0
    image = json.loads((tmp_path / "out" / "dataset.json").read_text())["image"]
    files = sorted((CASES / "sixteen_bit" / "images").iterdir())
    values = np.stack([np.asarray(Image.open(file)) for file in files[:3]])
    low, high = (float(f"{value:.6g}") for value in np.percentile(values.repeat(3), (0.1, 99.9)))
    assert image["range"] == [[low, high]]
    assert (image["channels"], image["dtype"], image["shown"]) == (3, "uint16", [0, 1, 2])
    mean = scaled(ImageFacts(3, "uint16", ((low, high),), (0.0,) * 3), values[..., None].repeat(3, -1)).mean()
    assert image["mean"] == pytest.approx([mean] * 3, abs=0.01)
    assert f"values of {low:g} to {high:g} become 0 to 255" in capsys.readouterr().out
    stored_files = {e["image/encoded"].bytes_list.value[0] for e in examples(tmp_path / "out")}
    assert stored_files == {file.read_bytes() for file in files}


def test_tiff(tmp_path):
    assert build("tiff", tmp_path / "out") == 0
    assert "image" not in json.loads((tmp_path / "out" / "dataset.json").read_text())
    files = sorted((CASES / "tiff" / "images").iterdir())
    found = examples(tmp_path / "out")
    assert [e["image/format"].bytes_list.value[0] for e in found] == [b"png"] * 4
    for file, example in zip(files, found, strict=True):
        content = example["image/encoded"].bytes_list.value[0]
        assert np.array_equal(tf.io.decode_png(content, channels=3), np.asarray(Image.open(file).convert("RGB")))


def test_exif_3(tmp_path, capsys):
    assert build("exif_3", tmp_path / "refused") == 1
    line = "p00.jpg: EXIF orientation 3 turns it, and its label fits it turned or not; give --exif=apply"
    assert line in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
    assert build("exif_3", tmp_path / "applied", "--exif=apply") == 0
    assert "4 photographs: turned upright" in capsys.readouterr().out
    assert build("exif_3", tmp_path / "ignored", "--exif=ignore") == 0
    assert "4 photographs: not turned upright" in capsys.readouterr().out
    files = sorted((CASES / "exif_3" / "images").iterdir())
    for file, one, other in zip(files, examples(tmp_path / "applied"), examples(tmp_path / "ignored"), strict=True):
        assert np.array_equal(tf.io.decode_png(one["image/encoded"].bytes_list.value[0], channels=3), read_image(file))
        assert other["image/encoded"].bytes_list.value[0] == file.read_bytes()


def test_gif(tmp_path):
    content = (CASES / "clip.gif").read_bytes()
    with Image.open(io.BytesIO(content)) as clip:
        frames, first = getattr(clip, "n_frames", 1), np.asarray(clip.convert("RGB"))
    assert frames > 1
    result = packed(pair(tmp_path, "clip.gif", content, first.shape[:2]))
    assert result.notes == (FRAMES,)
    assert np.array_equal(tf.io.decode_png(result.image, channels=3), first)


# ---- orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(tmp_path, kind, orientation):
    """The stored picture is what predict reads, the label's size decides, and what cannot be told is refused."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(RGB, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    expected = read_image(content)
    name = f"a.{kind.lower()}"
    turned = pair(tmp_path, name, content, expected.shape[:2])
    if orientation in (2, 3, 4):
        assert "--exif=apply" in fault(turned)
    else:
        result = packed(turned)
        assert (result.height, result.width) == expected.shape[:2]
        assert result.notes == ((photographs.TURNED,) if orientation > 1 else ())
    applied = packed(turned, PhotographRules(exif="apply"))
    assert np.array_equal(read_image(applied.image), expected)
    as_stored = pair(tmp_path, name, content, RGB.shape[:2])
    if orientation > 4:
        assert "turns it to 30 x 20, and its label has 20 x 30, as before turning" in fault(as_stored)
    ignored = packed(as_stored, PhotographRules(exif="ignore"))
    assert (ignored.height, ignored.width) == RGB.shape[:2]
    if kind in ("JPEG", "PNG"):
        assert ignored.image == content
    else:
        assert np.array_equal(read_image(ignored.image), RGB)
    if orientation == 1 and kind in ("JPEG", "PNG"):
        assert packed(turned).image == content
    assert np.array_equal(read_image(packed(pair(tmp_path, f"b.{kind.lower()}", content, None)).image), expected)


def test_a_square_picture_is_never_guessed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    square = encoded(RGB[:, :20], "JPEG", exif=exif)
    assert "turned or not" in fault(pair(tmp_path, "a.jpg", square, (20, 20)))
    assert packed(pair(tmp_path, "a.jpg", square, None)).notes == (photographs.TURNED,)


# ---- modes and formats


def grey_png(bits: int) -> bytes:
    values = RANDOM.integers(0, 2**bits, (20, 30))
    rows = b"".join(b"\0" + np.packbits([int(b) for v in row for b in f"{v:0{bits}b}"]).tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30, 20, bits, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return deep_png.SIGNATURE + b"".join(parts)


def modes() -> dict[str, bytes]:
    image, alpha = Image.fromarray(RGB), Image.fromarray(DEEP[..., 0].astype(np.uint8))
    grey, clear, palette = image.convert("L"), image.copy(), image.quantize(60)
    both = grey.copy()
    clear.putalpha(alpha)
    both.putalpha(alpha)
    pngs = {
        "grey": grey,
        "alpha": clear,
        "grey alpha": both,
        "palette": palette,
        "bits": image.convert("1"),
        "palette alpha": clear.quantize(50, method=Image.Quantize.FASTOCTREE),
    }
    found = {name: encoded(picture, "PNG") for name, picture in pngs.items()}
    found |= {f"palette {bits}": encoded(image.quantize(2**bits), "PNG", bits=bits) for bits in (1, 2, 4)}
    found |= {f"grey {bits}": grey_png(bits) for bits in (1, 2, 4)}
    found |= {"one clear colour": encoded(palette, "PNG", transparency=3)}
    others = {"BMP": image, "PPM": image, "GIF": palette}
    found |= {kind: encoded(picture, kind) for kind, picture in others.items()}
    found |= {"WEBP": encoded(image, "WEBP", lossless=True), "CMYK TIFF": encoded(image.convert("CMYK"), "TIFF")}
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        found[compression] = encoded(image, "TIFF", compression=compression)
        found[f"grey {compression}"] = encoded(grey, "TIFF", compression=compression)
    return found


@pytest.mark.parametrize("mode", sorted(modes()))
def test_records_decode_to_what_predict_reads(tmp_path, mode):
    content = modes()[mode]
    result = packed(pair(tmp_path, "a.bin", content, (20, 30)))
    decoded = tf.io.decode_png(result.image, channels=3).numpy()
    assert np.array_equal(decoded, read_image(content))
    assert np.array_equal(decoded, read_photograph(content, None).pixels)
    if content.startswith(deep_png.SIGNATURE):
        assert result.image == content
    assert (ALPHA in result.notes) == ("alpha" in mode or "clear" in mode)


def test_a_cmyk_jpeg_decodes_alike(tmp_path):
    rows = (np.add.outer(np.arange(64), np.arange(80)) % 256).astype(np.uint8)
    content = encoded(Image.fromarray(np.stack([rows, rows[::-1], rows], -1)).convert("CMYK"), "JPEG", quality=95)
    result = packed(pair(tmp_path, "a.jpg", content, (64, 80)))
    assert result.image == content
    difference = tf.io.decode_png(content, channels=3).numpy().astype(int) - read_image(content)
    assert np.abs(difference).max() <= 5  # as of any JPEG


# ---- damaged


def test_what_is_cut_off_is_a_fault(tmp_path):
    smooth = (np.add.outer(np.arange(160), np.arange(120)) % 256).astype(np.uint8)
    picture = np.stack([smooth, smooth[::-1], smooth], -1)
    jpeg = encoded(picture, "JPEG", quality=90)
    start = jpeg.index(b"\xff\xc0")
    taller = jpeg[: start + 5] + struct.pack(">H", 320) + jpeg[start + 7 :]
    short = jpeg[: len(jpeg) // 2] + b"\xff\xd9"
    png = bytearray(encoded(picture, "PNG"))
    png[20:24] = struct.pack(">I", 320)
    png[29:33] = struct.pack(">I", zlib.crc32(bytes(png[12:29])))
    for name, content, rows in (("a.jpg", taller, 320), ("b.jpg", short, 160), ("c.png", bytes(png), 320)):
        assert f"{name}: cut off: it announces {rows} rows" in fault(pair(tmp_path, name, content, (rows, 120)))
    for number in range(1, 20):
        part = jpeg[: len(jpeg) * number // 20]
        assert isinstance(packing.pack(pair(tmp_path, "d.jpg", part, (160, 120)), RULES), list)


def test_a_picture_that_ends_in_grey_or_black_is_whole(tmp_path):
    picture = np.stack([(np.add.outer(np.arange(160), np.arange(120)) % 256).astype(np.uint8)] * 3, -1)
    for value, first in ((128, 96), (128, 16), (0, 80)):
        picture[first:] = value
        for name, options in (("a.jpg", {"quality": 95}), ("b.jpg", {"subsampling": 0}), ("c.png", {})):
            content = encoded(picture, "PNG" if name == "c.png" else "JPEG", **options)
            assert packed(pair(tmp_path, name, content, (160, 120))).image == content


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_without_contrast_is_a_fault(tmp_path, value):
    flat = np.full((20, 30, 3), value, np.uint8)
    for name, content in {"a.jpg": encoded(flat, "JPEG"), "b.png": encoded(flat, "PNG"), "c.tif": tiff(flat)}.items():
        assert f"{name}: without contrast: every pixel is {value}" in fault(pair(tmp_path, name, content, (20, 30)))


def test_large_pictures(tmp_path):
    one = pair(tmp_path, "a.png", encoded(RGB, "PNG"), (20, 30))
    line = fault(one, PhotographRules(max_pixels=599))
    assert "a.png: too large to be a photograph (600 pixels, more than 599); --max_image_pixels=600 allows it" in line
    packed(one, PhotographRules(max_pixels=600))
    for content in (npy(DEEP), tiff(DEEP, photometric="minisblack", planarconfig="contig")):
        with pytest.raises(DeepLabError, match="--max_image_pixels=600"):
            open_photograph(content, Reading(max_pixels=599))


# ---- more bits and bands


@pytest.mark.parametrize("samples", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (20, 30)])
def test_deep_pngs(samples, size):
    """Every filter, as TensorFlow (libpng) writes them, and our own writer."""
    smooth = np.cumsum(RANDOM.integers(-90, 90, (*size, samples)), axis=1) % 65536
    for pixels in (smooth.astype(np.uint16), RANDOM.integers(0, 65536, (*size, samples), np.uint16)):
        assert np.array_equal(deep_png.decode_deep_png(tf.io.encode_png(pixels).numpy()), pixels)
        ours = deep_png.encode_deep_png(pixels)
        assert np.array_equal(tf.io.decode_png(ours, channels=samples, dtype=tf.uint16), pixels)


def deep_files() -> dict[str, tuple[bytes, np.ndarray]]:
    found = {}
    for dtype in ("uint8", "uint16", "float32"):
        for bands in (1, 2, 3, 4, 5, 7):
            if dtype == "uint8" and bands in (1, 3):
                continue  # 8-bit grey and RGB
            pixels = RANDOM.normal(0, 1e4, (20, 30, bands)).astype(dtype)
            plane = pixels[..., 0] if bands == 1 else pixels
            found[f"{dtype} {bands} npy"] = npy(plane), pixels
            found[f"{dtype} {bands} npy first"] = npy(np.moveaxis(pixels, -1, 0)), pixels
            found[f"{dtype} {bands} npy big-endian"] = npy(plane.astype(plane.dtype.newbyteorder(">"))), pixels
            options = {"photometric": "minisblack", **({"planarconfig": "contig"} if bands > 1 else {})}
            for compression in (None, "lzw", "zlib"):
                found[f"{dtype} {bands} tiff {compression}"] = tiff(plane, compression=compression, **options), pixels
            if bands > 1:
                planes = tiff(np.moveaxis(pixels, -1, 0), photometric="minisblack", planarconfig="separate")
                found[f"{dtype} {bands} tiff planes"] = planes, pixels
            if bands > 4:
                found[f"{dtype} {bands} tiff shaped"] = tiff(pixels), pixels
    for samples in (1, 3, 4):
        found[f"uint16 {samples} png"] = tf.io.encode_png(DEEP[..., :samples]).numpy(), DEEP[..., :samples]
    found["uint16 3 tiff"] = tiff(DEEP[..., :3]), DEEP[..., :3]
    return found


@pytest.mark.parametrize("kind", sorted(deep_files()))
def test_deep_photographs_are_stored_without_loss(tmp_path, kind):
    content, pixels = deep_files()[kind]
    dtype, bands = kind.split()[0], int(kind.split()[1])
    one = pair(tmp_path, "a.bin", content, (20, 30))
    names = tuple(f"b{i}" for i in range(bands)) if kind == "uint16 4 png" else ()
    facts = photograph_facts.find_image_facts([one], PhotographOptions(bands=names), None)
    assert facts is not None
    assert (facts.channels, facts.dtype) == (3 if bands == 1 else bands, dtype)
    assert parse_dataset(dataset_json(dataclasses.replace(FACTS, image=facts)).encode(), "dataset.json").image == facts
    result = packed(one, PhotographRules(facts))
    if facts.is_png:
        decoded = tf.io.decode_png(result.image, channels=facts.channels, dtype=dtype).numpy()
    else:
        decoded = np.load(io.BytesIO(result.image))
        assert result.image[:8] == b"\x93NUMPY\x01\x00"
    assert decoded.dtype == dtype
    assert np.array_equal(decoded, pixels.repeat(3, -1) if decoded.shape[-1] > pixels.shape[-1] else pixels)
    read = read_photograph(content, facts)
    assert np.array_equal(read.pixels, scaled(facts, pixels.repeat(3, -1) if bands == 1 else pixels))
    assert read.shown.dtype == np.uint8
    assert read.shown.shape == (20, 30, 3)


def test_bands_are_told_from_rows():
    cube = RANDOM.random((6, 6, 6)).astype(np.float32)
    for array, reading in ((cube, Reading()), (cube[:, :, :5], Reading(size=(9, 9))), (cube[:5, :, :5], Reading(5))):
        with pytest.raises(DeepLabError, match="whose bands cannot be told from rows and columns"):
            open_photograph(npy(array), reading)
    wide = RANDOM.random((5, 4, 7)).astype(np.float32)
    assert open_photograph(npy(wide), Reading(size=(5, 4))).channels == 7
    assert open_photograph(npy(wide), Reading(size=(4, 7))).channels == 5
    assert open_photograph(npy(wide), Reading(7)).size == (5, 4)
    assert open_photograph(npy(wide), Reading(5)).size == (4, 7)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((4, 5, 6, 2), np.uint8), "shape .4, 5, 6, 2."),
        (np.zeros(5, np.uint8), "shape .5."),
        (np.zeros((0, 5), np.uint8), "shape .0, 5."),
        (np.zeros((20, 30), np.complex64), "values of complex64"),
        (np.array([["a", "b"], ["c", "d"]]), "values of <U1"),
        (np.full((20, 30), 0.1), "values of float64 that float32 cannot hold exactly"),
        (np.full((20, 30), 2**24 + 1, np.int32), "values of int32 that float32 cannot hold exactly"),
        (np.array([{}], object), "a .npy that cannot be read"),
    ],
)
def test_arrays_that_are_not_photographs(array, expected):
    with pytest.raises(DeepLabError, match=expected):
        open_photograph(npy(array))
    with pytest.raises(DeepLabError, match="a .npy that cannot be read"):
        open_photograph(npy(np.zeros((20, 30), np.float32))[:-9])


def test_exact_dtypes_are_taken():
    for dtype in (np.int8, np.int16, np.float16, np.float64, np.int64):
        photograph = open_photograph(npy(np.arange(-300, 300).reshape(20, 30).clip(-128, 127).astype(dtype)))
        assert photograph.dtype == "float32"


def deep_set(folder: pathlib.Path, count: int = 5) -> list[Pair]:
    rows = np.add.outer(np.arange(20), np.arange(30))
    arrays = [np.stack([rows * (i + 1) + 100 * band for band in range(5)], -1).astype(np.uint16) for i in range(count)]
    return [pair(folder, f"{i}.npy", npy(array), (20, 30)) for i, array in enumerate(arrays)]


def test_a_range_a_band_that_does_not_depend_on_the_processes(tmp_path):
    pairs = deep_set(tmp_path)
    splits = {"val": pairs[3:], "train": pairs[:3]}
    told: list[str] = []
    for processes in (1, 2):
        build_records(splits, FACTS, tmp_path / str(processes), BuildOptions(2, processes, tell=told.append))
    for name in ("dataset.json", "train-00000-of-00002.tfrecord", "val-00001-of-00002.tfrecord"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    image = parse_dataset((tmp_path / "1" / "dataset.json").read_bytes(), "d").image
    assert image is not None
    values = np.concatenate([np.load(one.image).reshape(-1, 5) for one in pairs[:3]])
    expected = [tuple(float(f"{v:.6g}") for v in np.percentile(column, (0.1, 99.9))) for column in values.T]
    assert image.range == tuple(expected)
    assert told[0].startswith("Photographs: 5 bands of uint16; values of 0 to 141, 100 to 241, ")
    assert [e["image/format"].bytes_list.value[0] for e in examples(tmp_path / "1")] == [b"npy"] * 5
    assert [e["image/channels"].int64_list.value[0] for e in examples(tmp_path / "1")] == [5] * 5


def test_a_range_of_the_user(tmp_path):
    pairs = deep_set(tmp_path)
    options = PhotographOptions(value_range=(0, 1000), bands=tuple("abcde"), shown=(4, 0, 2))
    image = photograph_facts.find_image_facts(pairs, options, None)
    assert image is not None
    assert (image.range, image.bands, image.shown) == (((0.0, 1000.0),), tuple("abcde"), (4, 0, 2))
    many = photograph_facts.find_image_facts(pairs, PhotographOptions(value_range=tuple(range(10))), None)
    assert many is not None
    assert many.range == ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
    rgb = [pair(tmp_path, "rgb.png", encoded(RGB, "PNG"), (20, 30))]
    eight = photograph_facts.find_image_facts(rgb, PhotographOptions(value_range=(10, 200)), None)
    assert eight is not None
    assert (eight.channels, eight.dtype, eight.range) == (3, "uint8", ((10.0, 200.0),))
    assert photograph_facts.find_image_facts(rgb, PhotographOptions(), None) is None
    assert photograph_facts.find_image_facts(pairs, PhotographOptions(), image) == image
    assert photograph_facts.find_image_facts(rgb, PhotographOptions(shown=(0, 1, 2)), None) is None, "the default"
    swapped = photograph_facts.find_image_facts(rgb, PhotographOptions(shown=(2, 1, 0)), None)
    assert swapped is not None and swapped.shown == (2, 1, 0)
    grey = [pair(tmp_path, "grey.png", encoded(RGB[..., 0], "PNG"), (20, 30))]
    with pytest.raises(DeepLabError, match="^--shown_bands=2,1,0 would do nothing: the bands .* are the same picture"):
        photograph_facts.find_image_facts(grey, PhotographOptions(shown=(2, 1, 0)), None)
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"value_range": (5, 5)}, "--value_range=5,5: expected low,high"),
        ({"value_range": (1, 2, 3, 4)}, "--value_range=1,2,3,4: .*each of the 5"),
        ({"value_range": (1,)}, "--value_range=1"),
        ({"value_range": (0, float("nan"))}, "--value_range=0,nan"),
        ({"bands": ("a", "b")}, "--bands=a,b: 2 names; .*0.npy has 5 bands of uint16"),
        ({"shown": (0, 1, 5)}, "--shown_bands=0,1,5: expected three bands of 0..4"),
        ({"shown": (0, 1)}, "--shown_bands=0,1"),
    )
    for wrong, message in refused:
        with pytest.raises(DeepLabError, match=message):
            photograph_facts.find_image_facts(pairs, PhotographOptions(**wrong), None)


def test_what_does_not_fit_the_set(tmp_path):
    pairs = deep_set(tmp_path)
    rgb = pair(tmp_path, "rgb.png", encoded(RGB, "PNG"), (20, 30))
    with pytest.raises(DeepLabError, match="several kinds .*0.npy: 5 bands of uint16; .*rgb.png: 3 bands of uint8"):
        build_records({"train": [*pairs, rgb]}, FACTS, tmp_path / "out")
    with pytest.raises(DeepLabError, match="1 faults.*\n.*rgb.png: 3 bands of uint8; expected 5 bands of uint16"):
        build_records({"train": pairs, "val": [rgb]}, FACTS, tmp_path / "out")
    with pytest.raises(DeepLabError, match="1 faults.*\n.*0.npy: 5 bands of uint16; expected 3 bands of uint8"):
        build_records({"train": [rgb], "val": pairs[:1]}, FACTS, tmp_path / "out")
    flat = [pair(tmp_path, f"flat{i}.npy", npy(np.full((20, 30), 700, np.uint16)), (20, 30)) for i in range(2)]
    with pytest.raises(DeepLabError, match="no contrast: nearly all of their values are 700"):
        build_records({"train": flat}, FACTS, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    told: list[str] = []
    options = BuildOptions(1, tell=told.append, photographs=PhotographOptions(value_range=(5000, 6000)))
    build_records({"train": pairs}, FACTS, tmp_path / "out", options)
    assert "5 photographs: without contrast within the value range" in told[1]


# ---- the way to 0..255


def test_values_become_0_to_255():
    image = ImageFacts(2, "float32", ((100.0, 800.0), (-1.0, 1.0)), (0.0, 0.0))
    values = np.array([[100, -1], [800, 1], [450, 0], [0, -9], [9000, 9], [np.nan, np.inf], [-np.inf, 0.5]], np.float32)
    expected = [[0, 0], [255, 255], [127.5, 127.5], [0, 0], [255, 255], [0, 255], [0, 191.25]]
    assert scaled(image, values).tolist() == expected
    inside = scaled(image, values[:3])
    assert np.allclose(stored(image, inside), values[:3])
    byte = ImageFacts(3, "uint8", ((0.0, 255.0),), (0.0,) * 3)
    assert np.array_equal(scaled(byte, RGB), RGB)


def test_a_blank_picture_is_told():
    image = ImageFacts(3, "uint16", ((10_000.0, 60_000.0),), (0.0,) * 3)
    dark = encoded(RANDOM.integers(100, 800, (20, 30), np.uint16), "PNG")
    (note,) = read_photograph(dark, image).notes
    assert "without contrast in the model's value range 10000 to 60000" in note
    (note,) = read_photograph(dark, None).notes
    assert "65535 was taken for white" in note
    assert read_photograph(encoded(RGB, "PNG"), None).notes == ()


def test_bands_that_a_model_does_not_read():
    image = ImageFacts(5, "uint16", ((0.0, 9.0),), (0.0,) * 5, tuple("abcde"))
    with pytest.raises(DeepLabError, match=r"x: 3 bands of uint8; the model reads 5 bands of uint16 \(a, b, c, d, e\)"):
        read_photograph(encoded(RGB, "PNG"), image, name="x")
    with pytest.raises(DeepLabError, match="x: 4 bands of uint16; the model reads 3 bands of uint8"):
        read_photograph(npy(DEEP), None, name="x")
    with pytest.raises(DeepLabError, match="x: 4 bands of uint16; the model reads 3 bands of uint8"):
        read_photograph(tiff(DEEP, photometric="minisblack", planarconfig="contig"), None, name="x")
    deep = ImageFacts(3, "uint16", ((0.0, 9.0),), (0.0,) * 3)
    with pytest.raises(DeepLabError, match="x: 3 bands of uint8; the model reads 3 bands of uint16"):
        read_photograph(encoded(RGB, "JPEG"), deep, name="x")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([], "image=.*expected a dict"),
        ({"channels": 3, "dtype": "uint8", "range": [[0, 1]], "mode": 1}, "mode"),
        ({"channels": True, "dtype": "uint8", "range": [[0, 1]]}, "channels=True"),
        ({"channels": 0, "dtype": "uint8", "range": [[0, 1]]}, "channels=0"),
        ({"channels": 3, "dtype": "int32", "range": [[0, 1]]}, "dtype='int32'"),
        ({"channels": 3, "dtype": ["uint8"], "range": [[0, 1]]}, "dtype="),
        ({"channels": 3, "dtype": "uint8"}, "range=None"),
        ({"channels": 3, "dtype": "uint8", "range": [[0, 0]]}, "range="),
        ({"channels": 3, "dtype": "uint8", "range": [[0, 1], [0, 1]]}, "range="),
        ({"channels": 3, "dtype": "uint8", "range": [["0", "1"]]}, "range="),
        ({"channels": 3, "dtype": "uint8", "range": [[0, 1e40]]}, "range="),
        ({"channels": 3, "dtype": "uint8", "range": [[0, 1]], "mean": [1, 2]}, "mean="),
        ({"channels": 3, "dtype": "uint8", "range": [[0, 1]], "mean": [1, 2, 300]}, "mean="),
        ({"channels": 3, "dtype": "uint8", "range": [[0, 1]], "bands": ["a", "a", "b"]}, "bands="),
        ({"channels": 3, "dtype": "uint8", "range": [[0, 1]], "shown": [0, 1, 3]}, "shown="),
        ({"channels": 3, "dtype": "uint8", "range": [[0, 1]], "shown": "012"}, "shown="),
    ],
)
def test_facts_that_are_wrong(image, message):
    content = json.dumps({"class_names": ["a", "b"], "image": image}).encode()
    with pytest.raises(DeepLabError, match=message):
        parse_dataset(content, "dataset.json")


def test_upright_undoes_itself():
    for orientation in range(1, 9):
        assert upright(RGB, orientation).shape[:2] == ((30, 20) if orientation > 4 else (20, 30))
