"""Writes small data sets: encoded pictures, TFRecords of them, examples of the shapes data set."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np
import PIL.Image
import tensorflow as tf

from deeplab_tf.data import records
from deeplab_tf.data.shapes import shapes_example


def encoded(array: np.ndarray, kind: str = "PNG", **options) -> bytes:
    """Returns a picture, uint8 [h, w] or [h, w, 3], as a file of Pillow's format `kind`."""
    stream = io.BytesIO()
    PIL.Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def example_of(name: str, image: np.ndarray, label: np.ndarray | None) -> bytes:
    """Returns the record of an image, uint8 [h, w, 3], and its label, uint8 [h, w], as PNGs."""
    height, width = image.shape[:2]
    content = None if label is None else encoded(label)
    return records.make_example(encoded(image), content, filename=name, height=height, width=width)


def write_records(folder: pathlib.Path, split: str, examples: Sequence[bytes], *, shards: int = 1) -> str:
    """Writes records as the shards of `split`, and returns the folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(records.shard_ranges(len(examples), shards)):
        with tf.io.TFRecordWriter(str(folder / records.shard_name(split, number, shards))) as writer:
            for index in part:
                writer.write(examples[index])
    return str(folder)


def write_shapes(folder: pathlib.Path, split: str, count: int, size: tuple[int, int]) -> str:
    """Writes examples of the shapes data set, of `size` (height, width), as the records of `split`; returns it."""
    height, width = size
    pictures = [shapes_example(0, index, height=height, width=width) for index in range(count)]
    return write_records(folder, split, [example_of(f"shapes_{i}", *pair) for i, pair in enumerate(pictures)])
