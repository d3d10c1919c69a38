"""Folders of own data as docs/how-to/own_data.md has them, its tables, and what its first command makes of them."""

import io
import json
import pathlib
import re
import shlex
from typing import Any

import numpy as np
import PIL.Image
import tensorflow as tf
from commands import finished

from deeplab_tf.catalog.palettes import pascal_palette
from deeplab_tf.config import ModelConfig
from deeplab_tf.data import records
from deeplab_tf.doctor.dataset import check_dataset
from deeplab_tf.tools import build_data, export_model, serve, train
from deeplab_tf.tools import eval as eval_tool

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


def deep(seed: int, bands: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(100, 4000, (*SIZE, bands)).astype(np.uint16)
    return drawn[..., 0] if bands == 1 else drawn


def encoded(array: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def photographs(my_data: pathlib.Path, ending: str, contents: list[bytes]):
    """All of train, of one kind."""
    usual(my_data)
    (my_data / "images" / "val" / "d.png").unlink()
    for name, content in zip("abc", contents, strict=True):
        (my_data / "images" / "train" / f"{name}.png").unlink()
        (my_data / "images" / "train" / f"{name}{ending}").write_bytes(content)
    (my_data / "images" / "val" / f"d{ending}").write_bytes(contents[0][:-1] + contents[0][-1:])
