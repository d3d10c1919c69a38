"""What docs/how-to/own_data.md says is so: its commands run, and every row of its tables is tried."""

import base64
import io
import json
import pathlib
import re
import shlex
import signal
import struct
import urllib.request
import zlib
from typing import Any

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tifffile
from annotated import CAT, MAKERS, labelme_values, save_json
from commands import begin, finished

from deeplab_tf.catalog.palettes import pascal_palette
from deeplab_tf.config import ModelConfig
from deeplab_tf.data import records
from deeplab_tf.doctor.dataset import check_dataset
from deeplab_tf.network.model import build_model
from deeplab_tf.tools import build_data, export_model, serve, train
from deeplab_tf.tools import eval as eval_tool
from deeplab_tf.weights.tf1 import variable_map, write_tensors

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "how-to" / "own_data.md").read_text(encoding="utf-8")
COMMANDS = {
    "build-data": build_data,
    "train": train,
    "eval": eval_tool,
    "export": export_model,
    "serve": serve,
}
SIZE = (40, 44)
NAMES = ("rest", "cat", "dog")
COLOURS = pascal_palette(3)
TINY = ModelConfig(model_variant="tiny", aspp_convs_filters=16)


def between(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n(.*)<!-- /{marker} -->", TEXT, re.DOTALL)
    assert found, marker
    return found[1]


def rows(marker: str) -> list[list[str]]:
    lines = between(marker).strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def column(marker: str, number: int = 0) -> list[str]:
    return [row[number] for row in rows(marker)]


def commands(marker: str) -> list[list[str]]:
    """The commands of a block: the name of each, and its flags."""
    text = between(marker).replace("\\\n", " ")
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("deeplab-tf ")]
    return [line[1:] for line in lines]


# ---- a folder of one's own, and what becomes of it


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> pathlib.Path:
    """The working directory of the commands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my_data"


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def label(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Every class, in blocks, so that a network could learn them."""
    drawn = np.random.default_rng(seed).integers(0, 3, (size[0] // 4, size[1] // 4), np.uint8)
    return drawn.repeat(4, axis=0).repeat(4, axis=1)


def put(path: pathlib.Path, array: np.ndarray, **options: Any):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array).save(path, **options)


def usual(root: pathlib.Path, names: str = "abcd"):
    """Pictures and labels in folders of splits; the last of them is val."""
    for seed, name in enumerate(names):
        split = "val" if name == names[-1] else "train"
        put(root / "images" / split / f"{name}.png", picture(seed))
        put(root / "labels" / split / f"{name}.png", label(seed))
    (root / "class_names.txt").write_text("\n".join(NAMES))


def build(*flags: str) -> int:
    """Runs the first command of the page with more flags; returns its exit status."""
    name, *given = commands("commands")[0]
    return finished(COMMANDS[name], *given, "--num_processes=1", *flags)


def facts() -> dict:
    return json.loads(pathlib.Path("my_records/dataset.json").read_text())


def stored(split: str) -> dict[str, tuple[bytes, np.ndarray | None]]:
    """Name -> the encoded photograph and the label of each record."""
    found: dict[str, tuple[bytes, np.ndarray | None]] = {}
    for file in sorted(pathlib.Path("my_records").glob(f"{split}-*")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            image, classes, name = (
                b"".join(features[key].bytes_list.value) for key in (records.IMAGE, records.LABEL, records.FILENAME)
            )
            found[name.decode()] = (image, np.array(PIL.Image.open(io.BytesIO(classes))) if classes else None)
    return found


def agree():
    """The doctor finds no error in a folder that build-data takes, nor in its records."""
    for place in ("my_data", "my_records"):
        assert check_dataset(place).count("error") == 0


# ---- layouts, lists, names


@pytest.mark.parametrize("row", rows("layouts"), ids=lambda row: f"{row[0]} {row[1]}")
def test_a_layout(here, row):
    photograph, drawn = (cell.strip("`") for cell in row[:2])
    kind, _, lists = row[2].partition(": ")
    for seed, name in enumerate("abcd"):
        split = "val" if name == "d" and kind == "folders" else "train"
        for pattern, array in ((photograph, picture(seed)), (drawn, label(seed))):
            head, slash, file = pattern.replace("train", split).rpartition("/")
            put(here / f"{head}{slash}{name}{file[1:]}", array)
    (here / "class_names.txt").write_text("\n".join(NAMES))
    for file, names in zip(re.findall(r"`(.*?)`", lists), ("a\nb\nc", "d"), strict=False):
        (here / file).parent.mkdir(parents=True, exist_ok=True)
        (here / file).write_text(names)
    assert build() == 0
    assert facts()["splits"] == ({"train": 4} if kind == "none" else {"train": 3, "val": 1})
    (name,) = (name for name in stored("train") if name.endswith("b"))
    np.testing.assert_array_equal(stored("train")[name][1], label(1))
    agree()


@pytest.mark.parametrize("lines", ["a\nb\nc", "a.png\nb.png\nc.png", "images/a.png labels/a.png\nimages/b.png\nc"])
def test_the_lines_of_a_list(here, lines):
    for seed, name in enumerate("abcd"):
        put(here / "images" / f"{name}.png", picture(seed))
        put(here / "labels" / f"{name}.png", label(seed))
    (here / "class_names.txt").write_text("\n".join(NAMES))
    (here / "train.txt").write_bytes(b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode())
    (here / "README.txt").write_text("my data")
    assert build() == 0 and facts()["splits"] == {"train": 3}


def test_a_test_without_labels(here):
    usual(here)
    put(here / "images" / "test" / "t.png", picture(9))
    assert build() == 0 and facts()["unlabelled"] == ["test"]
    assert stored("test")["t"][1] is None


def test_a_folder_is_divided(here):
    for part, drawn in (("images", picture), ("labels", label)):
        for video in "xyz":
            for frame in range(3):
                put(here / part / f"{video}_frame{frame}.png", drawn(ord(video) + frame))
    (here / "class_names.txt").write_text("\n".join(NAMES))
    ((name, *flags),) = commands("divided")
    assert finished(COMMANDS[name], *flags, "--num_processes=1") == 0
    assert facts()["splits"] == {"train": 6, "val": 3}
    assert len({name[0] for name in stored("val")}) == 1


NAMED = {
    "class_names.txt": "rest\ncat\ndog\n",
    "classes.txt": "0 rest\n1 cat\n2 dog\n",
    "labels.txt": "__ignore__\nrest\ncat\ndog\n",
    "obj.names": "rest\ncat\ndog\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nrest:0,0,0::\ncat:9,8,7::\ndog:1,2,3::\n",
    "data.yaml": "names:\n  0: rest\n  1: cat\n  2: dog\n",
    "dataset.json": json.dumps({"class_names": list(NAMES), "palette": [[0, 0, 0], [9, 8, 7], [1, 2, 3]]}),
}


@pytest.mark.parametrize("cell", column("names"))
def test_a_file_of_names(here, cell):
    usual(here)
    (here / "class_names.txt").unlink()
    file = cell.strip("`")
    (here / file).write_text(NAMED[file])
    assert build() == 0 and facts()["class_names"] == list(NAMES)
    if file in ("labelmap.txt", "dataset.json"):
        assert facts()["palette"] == [[0, 0, 0], [9, 8, 7], [1, 2, 3]]


# ---- labels


def paletted(indices: np.ndarray, colours) -> PIL.Image.Image:
    image = PIL.Image.fromarray(indices)
    image.putpalette([value for colour in colours for value in colour])
    return image


def grey(bits: int):
    def write(file: pathlib.Path, classes: np.ndarray):
        if bits == 1:
            PIL.Image.fromarray(classes > 0).save(file)
            return
        paletted(classes, [(0, 0, 0)] * 3).save(file, bits=bits)
        file.write_bytes(as_grey(file.read_bytes()))

    return write


def as_grey(content: bytes) -> bytes:
    """Returns a palette PNG as a grey one of the same bits: without its palette, and with another type."""
    out, position = bytearray(content[:8]), 8
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        kind = bytes(content[position + 4 : position + 8])
        data = bytes(content[position + 8 : position + 8 + length])
        data = data[:9] + b"\0" + data[10:] if kind == b"IHDR" else data
        if kind != b"PLTE":
            out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        position += 12 + length
    return bytes(out)


def saved(change, **options):
    return lambda file, classes: PIL.Image.fromarray(change(classes)).save(file, **options)


def reordered(file: pathlib.Path, classes: np.ndarray):
    paletted((classes + 1) % 3, [COLOURS[2], COLOURS[0], COLOURS[1]]).save(file)


def contradicting(file: pathlib.Path, classes: np.ndarray):
    paletted((classes + 1) % 3, [(7, 7, 9), COLOURS[0], COLOURS[1]]).save(file)


def smoothed(classes: np.ndarray) -> np.ndarray:
    mask = PIL.Image.fromarray(np.where(classes > 0, 255, 0).astype(np.uint8))
    return np.asarray(
        mask.resize((SIZE[1] // 2, SIZE[0] // 2)).resize((SIZE[1], SIZE[0]), PIL.Image.Resampling.BILINEAR)
    )


# What a label is -> how it is written, and what is stored for classes; or, in REFUSED, the words of the refusal.
WRITTEN = {
    "a grey PNG of 8 bits": ([saved(lambda c: c)], lambda c: c),
    "a grey PNG of 1, 2 or 4 bits": ([grey(2), grey(4)], lambda c: c),
    "a grey PNG of 16 bits, values up to 255": ([saved(lambda c: c.astype(np.uint16))], lambda c: c),
    "a palette PNG": ([lambda f, c: paletted(c, COLOURS).save(f)], lambda c: c),
    "a palette PNG whose colours are the set's, at other indices": ([reordered], lambda c: c),
    "an RGB PNG of the colours in `labelmap.txt` or `dataset.json`": (
        [saved(lambda c: np.array(COLOURS, np.uint8)[c])],
        lambda c: c,
    ),
    "an RGB PNG with red = green = blue = class": ([saved(lambda c: np.stack([c] * 3, axis=-1))], lambda c: c),
    "a lossless TIFF, BMP, GIF or WEBP": (
        [
            saved(lambda c: c, format="TIFF"),
            saved(lambda c: c, format="BMP"),
            saved(lambda c: c, format="GIF"),
            saved(lambda c: np.stack([c] * 3, axis=-1), format="WEBP", lossless=True),
        ],
        lambda c: c,
    ),
}
MASKS = {
    "0 and 255, of two classes": (saved(lambda c: np.where(c > 0, 255, 0).astype(np.uint8)), "--label_map=255:1"),
    "0 and 128, of two classes": (saved(lambda c: np.where(c > 0, 128, 0).astype(np.uint8)), "--label_map=128:1"),
    "smoothed at the edges, of two classes": (saved(smoothed), "--threshold=128"),
}
REFUSED = {
    "numbered from 1": (saved(lambda c: c + 1), "--label_map=1:0,2:1,3:2"),
    "of colours that are not known": (
        saved(lambda c: np.array([(0, 0, 0), (5, 6, 7), (8, 9, 10)], np.uint8)[c]),
        "write this as dataset.json",
    ),
    "a palette of known and unknown colours that contradict the indices": (contradicting, "do indices or colours"),
    "a JPEG, or another lossy file": (saved(lambda c: c * 100, format="JPEG"), "export the labels as PNG"),
}


def test_every_label_is_tried():
    assert column("labels") == [*WRITTEN, *MASKS, *REFUSED]


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_label_that_is_read(here, kind):
    writers, expected = WRITTEN[kind]
    for write in writers:
        usual(here)
        for seed, name in enumerate("abc"):
            write(here / "labels" / "train" / f"{name}.png", label(seed))
        assert build() == 0
        for seed, name in enumerate("abc"):
            np.testing.assert_array_equal(stored("train")[name][1], expected(label(seed)))
        agree()
        for file in pathlib.Path("my_records").iterdir():
            file.unlink()
    if kind == "a grey PNG of 1, 2 or 4 bits":
        grey(1)(here / "labels" / "train" / "a.png", label(0))
        assert build() == 0
        np.testing.assert_array_equal(stored("train")["a"][1], label(0) > 0)


@pytest.mark.parametrize("kind", [*MASKS, *REFUSED])
def test_a_label_that_is_refused(here, kind, capsys):
    write, words = {**MASKS, **REFUSED}[kind]
    usual(here)
    for file in (here / "labels").rglob("*.png"):
        write(file, label(0))
    if kind in MASKS:
        (here / "class_names.txt").write_text("rest\nthing")
    assert build() == 1
    message = capsys.readouterr().err
    assert words in message and not pathlib.Path("my_records").exists()
    assert check_dataset("my_data").count("error") == 1
    (printed,) = [row[1] for row in rows("labels") if row[0] == kind]
    given = re.findall(r"`(--\S+?)`", printed)
    if given:
        assert build(*given) == 0
        expected = {"numbered from 1": label(0)}.get(kind, label(0) > 0)
        if kind != "smoothed at the edges, of two classes":
            np.testing.assert_array_equal(stored("train")["a"][1], expected)


@pytest.mark.parametrize(("command", "kind"), [*zip(commands("masks"), [*MASKS][1:], strict=True)])
def test_the_commands_for_masks(here, command, kind):
    usual(here)
    (here / "class_names.txt").write_text("rest\nthing")
    for file in (here / "labels").rglob("*.png"):
        MASKS[kind][0](file, label(0))
    name, *flags = command
    assert finished(COMMANDS[name], *flags, "--num_processes=1") == 0


# ---- photographs


def deep(seed: int, bands: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(100, 4000, (*SIZE, bands)).astype(np.uint16)
    return drawn[..., 0] if bands == 1 else drawn


def exif(orientation: int) -> PIL.Image.Exif:
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    return tags


def encoded(array: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def frames(kind: str) -> bytes:
    others = [PIL.Image.fromarray(picture(seed)) for seed in (7, 8)]
    return encoded(picture(6), kind, save_all=True, append_images=others)


def tiff(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, photometric="minisblack")
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
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


def photographs(here: pathlib.Path, ending: str, contents: list[bytes]):
    """All of train, of one kind."""
    usual(here)
    (here / "images" / "val" / "d.png").unlink()
    for name, content in zip("abc", contents, strict=True):
        (here / "images" / "train" / f"{name}.png").unlink()
        (here / "images" / "train" / f"{name}{ending}").write_bytes(content)
    (here / "images" / "val" / f"d{ending}").write_bytes(contents[0][:-1] + contents[0][-1:])


def test_every_photograph_is_tried():
    assert set(column("photographs")) == {*SAME, *CHANGED, TURNED, *UNFIT, LARGE}


@pytest.mark.parametrize("kind", [*SAME, *CHANGED])
def test_a_photograph_that_is_read(here, kind, capsys):
    ending, contents = {**SAME, **CHANGED}[kind]
    photographs(here, ending, contents)
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


def test_a_photograph_that_is_turned(here, capsys):
    usual(here)
    put(here / "images/train/a.png", picture(0), exif=exif(6))
    put(here / "labels/train/a.png", label(0, (SIZE[1], SIZE[0])))
    assert build() == 0
    assert "turned upright" in capsys.readouterr().out
    upright = np.array(PIL.Image.open(io.BytesIO(stored("train")["a"][0])))
    np.testing.assert_array_equal(upright, np.rot90(picture(0), -1))


@pytest.mark.parametrize("kind", UNFIT)
def test_a_photograph_that_is_refused(here, kind, capsys):
    content, words = UNFIT[kind]
    usual(here)
    (here / "images" / "train" / "a.png").write_bytes(content)
    assert build() == 1
    assert words in capsys.readouterr().err
    assert check_dataset("my_data").count("error") >= 1
    if words.startswith("--exif"):
        assert build("--exif=apply") == 0


def test_bands_and_ranges_that_are_named(here):
    asked = re.findall(r"`(--(?:value_range|bands|shown_bands)=\S+?)`", between("photographs_text"))
    photographs(here, ".png", [encoded(transparent(seed), "PNG") for seed in range(3)])
    assert build(*asked) == 0
    image = facts()["image"]
    assert (image["channels"], image["range"], image["shown"]) == (4, [[100.0, 4000.0]], [3, 0, 1])
    assert image["bands"] == ["red", "green", "blue", "nir"]


def test_a_large_photograph(here, capsys):
    usual(here)
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    (here / "images" / "train" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert build() == 1
    assert "--max_image_pixels" in capsys.readouterr().err


# ---- annotations


@pytest.mark.parametrize("cell", column("annotations"))
@pytest.mark.parametrize("block", ["commands", "drawn"])
def test_a_format_of_annotations(here, cell, block):
    format_name = cell.strip("`")
    MAKERS[format_name](here)
    (name, *flags) = commands(block)[0]
    assert finished(COMMANDS[name], *flags, "--num_processes=1") == 0
    built = facts()
    assert built["class_names"][0] == "background" and built["class_names"][CAT[format_name]] == "cat"
    assert built["built"]["annotations"] == format_name
    ((_, classes),) = stored("train").values()
    assert classes is not None
    assert classes[15, 20] == CAT[format_name] and classes[0, 0] == 0
    assert (classes == 255).any() == (block == "drawn")  # the border
    if block == "drawn":
        assert built["built"]["drawing_order"] == "as_listed"
    agree()


def test_every_format_is_there():
    assert [cell.strip("`") for cell in column("annotations")] == list(MAKERS)


# ---- refused


def other_size(here: pathlib.Path):
    put(here / "labels" / "train" / "a.png", label(0, (20, 20)))


def other_names(here: pathlib.Path):
    (here / "classes.txt").write_text("rest\ncow\ndog")


def no_labels(here: pathlib.Path):
    (here / "labels").rename(here / "others")


FAULTS = {
    "two pictures of one name, `a.jpg` and `a.png`": (
        lambda f: put(f / "images/train/a.jpg", picture(0)),
        "have the same name and so one label",
    ),
    "a picture without a label, outside of `test`": (
        lambda f: (f / "labels/train/a.png").unlink(),
        "labels/train/a.png: missing label",
    ),
    "a label of another size than its picture": (other_size, "20 x 20 pixels, but"),
    "more than 256 names of classes": (
        lambda f: (f / "class_names.txt").write_text("\n".join(f"c{i}" for i in range(257))),
        "257 classes",
    ),
    "two files that name different classes": (other_names, "name different classes"),
    "a folder of pictures without labels or annotations": (no_labels, "no folder of labels"),
    "`--val_share` where there is a `val`": (lambda f: None, "there is a split val already"),
}


def test_every_refusal_is_tried():
    assert column("refused") == list(FAULTS)


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_refused(here, what, capsys):
    change, words = FAULTS[what]
    usual(here)
    change(here)
    assert build(*(["--val_share=0.2"] if "val_share" in what else [])) == 1
    message = capsys.readouterr().err
    assert words in message and "Traceback" not in message
    assert not pathlib.Path("my_records").exists()


# ---- the whole way


@pytest.fixture(scope="module")
def initial(tmp_path_factory) -> str:
    """A small network's weights to begin with, in place of Google's."""
    keras.utils.set_random_seed(0)
    prefix = tmp_path_factory.mktemp("initial") / "model.ckpt"
    write_tensors(prefix, {name: v.numpy() for name, v in variable_map(build_model(TINY)).items()})
    return str(prefix)


def asked(address: str, content: bytes) -> dict:
    """Returns the answer of a server to a picture."""
    body = json.dumps({"instances": [{"b64": base64.b64encode(content).decode()}]}).encode()
    with urllib.request.urlopen(f"{address}/v1/models/deeplab:predict", body, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["labels", "annotations", "bands"])
def test_from_a_folder_to_a_served_model(here, initial, kind):
    content = encoded(picture(3), "PNG")
    if kind == "labels":
        usual(here)
    elif kind == "annotations":
        for place in ("train/a", "train/b", "val/c"):
            put(here / f"{place}.png", picture(ord(place[-1])))
            size = {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
            save_json(here / f"{place}.json", labelme_values(name=f"{place[-1]}.png", **size))
    else:
        content = npy(deep(0, 5))
        photographs(here, ".npy", [npy(deep(seed, 5)) for seed in range(3)])
    small = ["--train_crop_size=33,33", "--train_batch_size=2", "--training_number_of_steps=2"]
    more = {
        "build-data": ["--num_processes=1"],
        "train": [*small, f"--tf_initial_checkpoint={initial}"],
        "eval": [],
        "export": ["--crop_size=65,65"],
        "serve": ["--port=0"],
    }
    page = commands("commands")
    assert [name for name, *_ in page] == list(more)
    for name, *flags in page[:-1]:
        # Flags that hold a list would hold both.
        kept = [flag for flag in flags if flag.split("=")[0] not in {other.split("=")[0] for other in more[name]}]
        assert finished(COMMANDS[name], *kept, *more[name]) == 0
    scores = json.loads(pathlib.Path("exp/mine/eval/metrics.jsonl").read_text())
    assert len([key for key in scores if "_class_" in key]) == (2 if kind == "annotations" else 3)
    assert pathlib.Path("exp/mine_saved_model/saved_model.pb").is_file()
    # In a process of its own: what ends it, Ctrl-C or a fault of a runtime, does not end the tests.
    with begin([*page[-1], *more["serve"]], here.parent) as server:
        try:
            address = next((line.split()[1] for line in server.stdout if line.startswith("Page:")), "")
            assert address, server.stderr.read()
            answer = asked(address.rstrip("/"), content)
            server.send_signal(signal.SIGINT)
            _, errors = server.communicate(timeout=120)
        finally:
            server.kill()
    assert server.returncode == 130 and "Traceback" not in errors, errors
    (prediction,) = answer["predictions"]
    assert np.shape(prediction["SemanticPredictions"]) == SIZE
