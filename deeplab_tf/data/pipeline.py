"""The input of training and evaluation: records to batches, as a pure function of the step.

Which record comes at which place, and what is drawn for it, follows from (seed, epoch, record) in closed form: a run
begins at any step at once, and equal steps see equal pixels. Everything runs in the graph of tf.data, on the host, but
for the files of `decoded_cache`, which are Python's.
"""

import tensorflow as tf

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import DataConfig
from deeplab_tf.data import transforms
from deeplab_tf.data.augment import DRAWS, make_augmentation
from deeplab_tf.data.decoded_cache import open_cache
from deeplab_tf.data.examples import (
    ExampleSource,
    attempt,
    checked_example,
    checked_label,
    open_source,
    sound_example,
    tell,
    unconverted,
)
from deeplab_tf.errors import DeepLabError

_ORDER = -1  # takes the place of a record's number in the seed of an epoch's order
_ROUNDS = 16


def make_dataset(
    config: DataConfig,
    *,
    split: str,
    training: bool,
    seed: int = 0,
    start_step: int = 0,
    part: tuple[int, int] = (0, 1),
    pieces: int = 1,
) -> tf.data.Dataset:
    """Returns batches of a split.

    Each is {"image": float32 [b, h, w, 3] in 0..255, "label": int32 [b, h, w, 1], "image_name": string [b], "height",
    "width": int64 [b], the stored sizes}. The order of operations is the release's (datasets/data_generator.py); mean
    subtraction is the network's.

    Training repeats for ever, in another order each epoch, with static shapes: random scale, crop, flip. Otherwise
    every example comes once, in order, the last batch as small as it may be, with "original_image" (uint8, after
    min_resize_value, before padding) and "size" (int32 [b, 2], height and width of that) too. There the image is padded
    at the bottom right to the crop size, or to the largest of its batch; one that is larger than the crop stays whole,
    which the network's predict function pads as it needs.

    Args:
      config: the options; `dataset_dir` is needed, and `crop_size` for training.
      split: whose shards are read. Of one called `test` no labels are read, all are the ignore label.
      training: augment, shuffle and repeat.
      seed: of order and draws.
      start_step: batches to leave out, at no cost.
      part: (i, n): of each batch the i-th of n equal parts, for several input pipelines; in evaluation every n-th
        example.
      pieces: training gives this part of each batch in so many equal pieces, one after the other, one for each device.

    Raises:
      DeepLabError: an option is missing, there are no records, or a file is damaged where records begin. What is
        found later is a tf.errors.InvalidArgumentError; `examples.named_errors` makes a DeepLabError of it.
    """
    source = open_source(config, split)
    if training and config.crop_size is None:
        raise DeepLabError("crop_size is not set; training crops to it, for instance crop_size=513,513")
    shares = part[1] * pieces
    if not 0 <= part[0] < part[1] or config.batch_size % shares:
        raise DeepLabError(
            f"batch_size={config.batch_size}: expected a multiple of {shares}, the devices that share it"
        )
    if training:
        return _training_batches(source, seed, start_step, part, pieces)
    return _evaluation_batches(source, start_step, part)


# ---- training


def _training_batches(
    source: ExampleSource, seed: int, start_step: int, part: tuple[int, int], pieces: int
) -> tf.data.Dataset:
    config = source.config
    size = config.batch_size // part[1]
    scales = transforms.scale_values(config.min_scale_factor, config.max_scale_factor, config.scale_factor_step_size)
    pixel, ignored = _pad_values(source)
    augmentation = make_augmentation(config, pixel)
    cache = open_cache(config.decoded_cache, source.identity) if config.decoded_cache else None

    def example_at(row: tf.Tensor) -> dict[str, tf.Tensor]:
        place = row // size * config.batch_size + part[0] * size + row % size
        epoch, record = _shuffled(seed, place, source.count)
        draws = tf.random.stateless_uniform([4], tf.stack([_mixed(seed, epoch), record]), alg="philox")
        scale = transforms.draw_scale(scales, config.scale_factor_step_size, draws[0])

        def window_of(shape: tf.Tensor) -> transforms.Window:
            return transforms.draw_window(shape, draws[1:], scale=scale, crop_size=config.crop_size)

        # Only what is needed of a JPEG is decoded, unless all of it is resized first, or kept.
        partly = window_of if config.min_resize_value is None and not cache else None
        if cache:
            example = cache.example(record, lambda: checked_example(source, record))
        else:
            example = checked_example(source, record, partly)
        extra = {"skipped": example["skipped"]} if config.skip_corrupt_records else {}
        image, label = _resized(config, example["image"], example["label"])
        window = window_of(example["shape"] if partly else tf.shape(image)[:2])
        image = transforms.image_window(image, window, example["corner"])
        if augmentation:
            extra[DRAWS] = augmentation.draws(_mixed(seed, epoch), record)
            image = augmentation.picture(image, extra[DRAWS])
        image = transforms.fill(image, window, config.crop_size, pixel)
        label = transforms.label_window(label, window, config.crop_size, ignored)
        return {"image": image, "label": tf.cast(label, tf.int32), **_stored(example), **extra}

    rows = tf.data.Dataset.counter(tf.constant(start_step * size, tf.int64), tf.constant(1, tf.int64))
    examples = rows.map(unconverted(example_at), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = examples.batch(size // pieces, drop_remainder=True)
    if augmentation:
        batches = batches.map(unconverted(augmentation.mixed), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def _stored(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {key: example[key] for key in ("image_name", "height", "width")}


def _mixed(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    return tf.constant(seed % 2**31, tf.int64) * 1_000_003 + epoch


def _shuffled(seed: int, place: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns epoch and record (int64) of a place in the endless sequence: a permutation of all records each epoch.

    Unlike the release's shuffle buffer of 100 this mixes whole data sets, and needs no memory.
    """
    epoch, place = place // count, place % count
    # The op's permutations are as good as its key: of small numbers, and in the public function's four rounds, they
    # leave most places as they are.
    key = tf.random.stateless_uniform(
        [3], tf.stack([_mixed(seed, epoch), tf.constant(_ORDER, tf.int64)]), None, None, tf.uint32, alg="philox"
    )
    record = tf.raw_ops.RandomIndexShuffle(
        index=place, seed=tf.cast(key, tf.int64), max_index=tf.constant(count - 1, tf.int64), rounds=_ROUNDS
    )
    return epoch, record


def _pad_values(source: ExampleSource) -> tuple[tuple[float, ...], int]:
    return ARCHITECTURES[source.config.model_variant].pad_pixel, source.facts.ignore_label


def _resized(config: DataConfig, image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    if config.min_resize_value is None:
        return image, label
    return transforms.resize_to_range(
        image,
        label,
        minimum=config.min_resize_value,
        maximum=config.max_resize_value,
        factor=config.resize_factor,
    )


# ---- evaluation


def _evaluation_batches(source: ExampleSource, start_step: int, part: tuple[int, int]) -> tf.data.Dataset:
    config = source.config
    pixel, ignored = _pad_values(source)

    def example_at(record: tf.Tensor) -> dict[str, tf.Tensor]:
        if config.skip_corrupt_records:
            good, example = attempt(source, record)
            tf.cond(good, lambda: 0, lambda: tell(source, record))
        else:
            good, example = True, sound_example(source, record)
        original, label = _resized(config, example["image"], checked_label(source, record, example))
        image, label = tf.cast(original, tf.float32), tf.cast(label, tf.int32)
        if config.crop_size:
            image, label = (transforms.pad_to(a, config.crop_size, v) for a, v in ((image, pixel), (label, ignored)))
        # Batches pad with one number for all channels, so the image waits with its padding at 0.
        image -= tf.constant(pixel)
        found = {"image": image, "label": label, "original_image": tf.cast(original, tf.uint8)}
        return {**found, "size": tf.shape(original)[:2], **_stored(example), "good": good}

    first = start_step * config.batch_size + part[0]
    rows = tf.data.Dataset.range(first, max(first, source.count), part[1])
    found = rows.map(unconverted(example_at), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if config.skip_corrupt_records:
        found = found.filter(lambda example: example["good"])
    found = found.map(lambda example: {key: value for key, value in example.items() if key != "good"})
    padding = {key: tf.constant(0, spec.dtype) for key, spec in found.element_spec.items() if key != "image_name"}
    padding |= {"label": tf.constant(ignored), "image_name": ""}
    batches = found.padded_batch(config.batch_size // part[1], padding_values=padding)
    finish = unconverted(lambda batch: {**batch, "image": batch["image"] + tf.constant(pixel)})
    return batches.map(finish).prefetch(tf.data.AUTOTUNE)
