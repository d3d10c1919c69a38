"""The measurement of `benchmark --what=pipeline`: make_dataset beside the same steps in stock operations of tf.image.

The photographs are synthetic: coloured regions, textures of all scales, the noise of a camera; a 2048 x 1024 PNG has
2.4 MB. All pipelines read the same records, take turns, and give equal examples for equal random numbers, which tests
verify. With --decoded_cache the epochs after the first are measured, which read the cache; the first, which fills it,
is measured beside an epoch without a cache.
"""

import dataclasses
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import tensorflow as tf
from PIL import Image

from deeplab_tf.config import DataConfig
from deeplab_tf.data import record_index, records
from deeplab_tf.data.pipeline import make_dataset

Kind = Literal["JPEG", "PNG"]

_REGIONS = 6
_CLASSES = 19
_IGNORED = 255
_PAD = 127.5
_SPLIT = "train"


@dataclasses.dataclass(frozen=True)
class PipelineScale:
    """The amount that is measured: sizes in pixels, numbers of records, batches of the warm-up, pictures."""

    crop: int = 513
    batch: int = 8
    voc: tuple[int, int] = (375, 500)
    city: tuple[int, int] = (1024, 2048)
    voc_records: int = 64
    city_records: int = 48
    many: tuple[int, int, int] = (100, 1_000, 10_000)
    tiny: tuple[int, int] = (72, 96)
    warm: int = 2  # batches before a measurement
    pictures: int = 160  # of a measurement


SMALL = PipelineScale(49, 2, (30, 40), (64, 96), 6, 4, (4, 8, 12), (24, 32), 1, 4)

# ---- photographs


def _clouds(random: np.random.Generator, size: tuple[int, int], channels: int, fall: float) -> np.ndarray:
    """Returns smooth noise, float32 [h, w, channels]; the waves of an octave are `fall` times as high as the longer."""
    height, width = size
    total = np.zeros((*size, channels), np.float32)
    waves = 3
    strength = 1.0
    while waves < min(size):
        grid = random.standard_normal((waves * height // width + 2, waves + 1, channels)).astype(np.float32)
        for channel in range(channels):
            plane = Image.fromarray(grid[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += strength * np.asarray(plane)
        waves *= 2
        strength *= fall
    return total


def photograph(size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a synthetic photograph, uint8 [h, w, 3], and its label, uint8 [h, w] of 0..18 and 255."""
    random = np.random.default_rng(seed)
    region = _clouds(random, size, _REGIONS, 0.5).argmax(axis=-1)
    colours = random.uniform(40, 200, (_REGIONS, 3)).astype(np.float32)
    texture = _clouds(random, size, 1, 0.7)
    noise = random.standard_normal((*size, 3), np.float32)
    classes = random.integers(0, _CLASSES, _REGIONS).astype(np.uint8)
    classes[0] = _IGNORED
    return np.clip(colours[region] + 20 * texture + noise, 0, 255).astype(np.uint8), classes[region]


def _encoded(array: np.ndarray, kind: Kind, **options: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def write_records(folder: str, size: tuple[int, int], kind: Kind, count: int, *, shards: int, pictures: int = 4) -> str:
    """Writes records of photographs to a folder, and returns it.

    Args:
      folder: to make.
      size: height and width of the photographs.
      kind: "JPEG" (quality 95) or "PNG".
      count: the number of records.
      shards: the number of files.
      pictures: the number of different photographs; they repeat.
    """
    os.makedirs(folder)
    examples = []
    for number in range(min(pictures, count)):
        image, label = photograph(size, number)
        content = _encoded(image, kind, quality=95) if kind == "JPEG" else _encoded(image, kind)
        label_png = _encoded(label, "PNG")
        name = f"picture_{number}"
        examples.append(records.make_example(content, label_png, filename=name, height=size[0], width=size[1]))
    for number, part in enumerate(records.shard_ranges(count, shards)):
        with tf.io.TFRecordWriter(os.path.join(folder, records.shard_name(_SPLIT, number, shards))) as writer:
            for i in part:
                writer.write(examples[i % len(examples)])
    return folder


# ---- the two pipelines


def our_dataset(folder: str, scale: PipelineScale, *, cache: str | None = None) -> tf.data.Dataset:
    """Returns the batches of make_dataset for training, with --decoded_cache in the folder `cache` if that is given."""
    config = DataConfig(
        dataset="cityscapes",
        dataset_dir=folder,
        crop_size=(scale.crop, scale.crop),
        batch_size=scale.batch,
        decoded_cache=cache,
    )
    return make_dataset(config, split=_SPLIT, training=True)


def plain_example(serialized: tf.Tensor, draws: tf.Tensor, crop: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns image and label of a record after the release's steps in stock operations.

    Args:
      serialized: string scalar, a tf.train.Example.
      draws: float32 [4] in [0, 1): scale, row, column, flip.
      crop: height and width.
    """
    image, label = _decoded(serialized)
    image = tf.cast(image, tf.float32)
    label = tf.cast(label, tf.int32)
    scales = tf.linspace(0.5, 2.0, 7)
    scale = tf.gather(scales, tf.cast(7 * draws[0], tf.int32))
    size = tf.cast(tf.cast(tf.shape(image)[:2], tf.float32) * scale, tf.int32)
    nearest = tf.compat.v1.image.ResizeMethod.NEAREST_NEIGHBOR
    image = tf.compat.v1.image.resize(image, size, align_corners=True)
    label = tf.compat.v1.image.resize(label, size, nearest, align_corners=True)
    size = tf.maximum(size, crop)
    image = tf.image.pad_to_bounding_box(image - _PAD, 0, 0, size[0], size[1]) + _PAD
    label = tf.image.pad_to_bounding_box(label - _IGNORED, 0, 0, size[0], size[1]) + _IGNORED
    top, left = (tf.cast(draws[1 + i] * tf.cast(size[i] - crop + 1, tf.float32), tf.int32) for i in (0, 1))
    image = tf.image.crop_to_bounding_box(image, top, left, crop, crop)
    label = tf.image.crop_to_bounding_box(label, top, left, crop, crop)
    return tf.cond(
        draws[3] <= 0.5,
        lambda: (tf.image.flip_left_right(image), tf.image.flip_left_right(label)),
        lambda: (image, label),
    )


def _decoded(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    keys = {key: tf.io.FixedLenFeature([], tf.string) for key in (records.IMAGE, records.LABEL)}
    example = tf.io.parse_single_example(serialized, keys)
    image = tf.io.decode_image(example[records.IMAGE], channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return image, tf.io.decode_png(example[records.LABEL], channels=1)


def plain_dataset(folder: str, scale: PipelineScale) -> tf.data.Dataset:
    """Returns the batches of a pipeline as tutorials write it."""

    def example_of(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        image, label = plain_example(serialized, tf.random.uniform([4]), scale.crop)
        return {"image": image, "label": label}

    examples = _serialized(folder).map(example_of, num_parallel_calls=tf.data.AUTOTUNE)
    return examples.batch(scale.batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _serialized(folder: str) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(records.find_shards(folder, _SPLIT)).shuffle(100).repeat()


def decoding_dataset(folder: str, scale: PipelineScale) -> tf.data.Dataset:
    """Returns batches of numbers from a pipeline that only decodes pictures and labels."""

    def decoded(serialized: tf.Tensor) -> tf.Tensor:
        return tf.add_n([tf.size(array) for array in _decoded(serialized)])

    return _serialized(folder).map(decoded, num_parallel_calls=tf.data.AUTOTUNE).batch(scale.batch).prefetch(1)


# ---- measuring


def _seconds(dataset: tf.data.Dataset, scale: PipelineScale) -> tuple[float, float]:
    """Returns seconds and processor seconds for each image, of a fresh iteration after some batches of warm-up."""
    batches = iter(dataset)
    count = max(1, scale.pictures // scale.batch)
    for _ in range(scale.warm):
        next(batches)
    wall = time.perf_counter()
    processor = time.process_time()
    for _ in range(count):
        next(batches)
    images = count * scale.batch
    return (time.perf_counter() - wall) / images, (time.process_time() - processor) / images


def _in_turn(datasets: Mapping[str, tf.data.Dataset], scale: PipelineScale, rounds: int) -> dict[str, np.ndarray]:
    """Returns seconds and processor seconds for each image, float64 [rounds, 2] of each data set.

    The data sets take turns, because the speed of a shared machine drifts.
    """
    seconds = {name: [] for name in datasets}
    for _ in range(rounds):
        for name, dataset in datasets.items():
            seconds[name].append(_seconds(dataset, scale))
    return {name: np.array(rows) for name, rows in seconds.items()}


def _compared_with_plain(
    folder: str, title: str, least: float, scale: PipelineScale, rounds: int
) -> dict[str, list[float]]:
    """Returns the figures of make_dataset beside the plain pipeline, on the records in a folder."""
    cache = f"{folder}.decoded"
    cached = our_dataset(folder, scale, cache=cache)
    datasets = {"ours": our_dataset(folder, scale), "plain": plain_dataset(folder, scale), "cached": cached}
    if "PNG" in title:
        datasets["decoding"] = decoding_dataset(folder, scale)
    for _ in cached.take(-(-record_index.count_examples(folder, _SPLIT) // scale.batch)):
        pass  # the first epoch, which fills the cache
    seconds = _in_turn(datasets, scale, rounds)
    figures = {}
    for name, source in (("ours", ""), ("cached", " from --decoded_cache")):
        ratios = seconds["plain"] / seconds[name]
        figures[f"{title}{source}: images/s over those of the plain pipeline, at least {least}"] = ratios[:, 0]
        figures[f"{title}{source}: the same by processor time"] = ratios[:, 1]
        figures[f"{title}{source}: images/s"] = 1 / seconds[name][:, 0]
    if "decoding" in seconds:
        limit = seconds["plain"][:, 0] / seconds["decoding"][:, 0]
        figures[f"{title}: over the plain pipeline, if decoding were all"] = limit
    shutil.rmtree(cache)
    ratios = _first_epoch(datasets["ours"], cached, cache, scale, rounds)
    figures[f"{title}: images/s of the epoch that fills --decoded_cache over those without"] = ratios[:, 0]
    figures[f"{title}: the same of the filling epoch by processor time"] = ratios[:, 1]
    return {name: values.tolist() for name, values in figures.items()}


def _first_epoch(
    without: tf.data.Dataset, filling: tf.data.Dataset, cache: str, scale: PipelineScale, rounds: int
) -> np.ndarray:
    """Returns the speed of an epoch that fills the cache over one without, by time and processor time: [rounds, 2]."""
    epoch = dataclasses.replace(scale, warm=1, pictures=scale.city_records - scale.batch)
    ratios = []
    for _ in range(rounds):
        before = np.array(_seconds(without, epoch))
        ratios.append(before / _seconds(filling, epoch))
        shutil.rmtree(cache)
    return np.array(ratios)


def _growth(folder: str, scale: PipelineScale, rounds: int) -> dict[str, float | list[float]]:
    """Returns the cost of an image among many records over the cost among few, and the time to open many."""
    few, some, many = scale.many
    small = dataclasses.replace(scale, crop=scale.tiny[0] + 1, pictures=8 * scale.pictures)

    def written(count: int, shards: int) -> str:
        return write_records(os.path.join(folder, f"{count}-{shards}"), scale.tiny, "JPEG", count, shards=shards)

    baseline = "few"
    folders = {
        baseline: written(few, 1),
        f"{some:,} records in 1 shard": written(some, 1),
        f"{many:,} records in 1 shard": written(many, 1),
        f"{many:,} records in {few} shards": written(many, few),
    }
    start = time.perf_counter()
    record_index.index_shards(records.find_shards(folders[f"{many:,} records in {few} shards"], _SPLIT))
    opening = time.perf_counter() - start
    seconds = _in_turn({name: our_dataset(path, small) for name, path in folders.items()}, small, rounds)
    ratios = {
        f"cost of an image among {name} over that among {few:,}": (values[:, 0] / seconds[baseline][:, 0]).tolist()
        for name, values in seconds.items()
        if name != baseline
    }
    return {**ratios, f"open {many:,} records in {few} shards, s": opening}


def measure(rounds: int, *, small: bool, announce: Callable[[str], None]) -> dict[str, float | list[float]]:
    """Returns the figures by name: numbers, or lists with one value for each round.

    Args:
      rounds: the number of measurements of each figure.
      small: measure tiny inputs, to try the benchmark; the figures mean nothing.
      announce: called with a line before each part.
    """
    scale = SMALL if small else PipelineScale()
    cases: list[tuple[tuple[int, int], Kind, int, float]] = [
        (scale.voc, "JPEG", scale.voc_records, 1.5),
        (scale.city, "JPEG", scale.city_records, 4),
        (scale.city, "PNG", scale.city_records, 4),
    ]
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for (height, width), kind, count, least in cases:
            title = f"{width} x {height} {kind}"
            announce(f"{title}: making photographs")
            path = write_records(os.path.join(folder, f"{kind}{width}"), (height, width), kind, count, shards=4)
            announce(f"{title}: {rounds} rounds")
            figures |= _compared_with_plain(path, title, least, scale, rounds)
        announce(f"{scale.many[-1]:,} records: {rounds} rounds")
        return figures | _growth(folder, scale, rounds)
