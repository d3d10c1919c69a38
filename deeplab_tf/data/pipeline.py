"""The input pipeline of training and evaluation: batches from records, as a pure function of the step.

Which record comes at which position, and the random numbers drawn for it, follow from (seed, epoch, record) in closed
form: a run starts at any step at once, and equal steps see equal pixels. Everything runs in the graph of tf.data, on
the host, except for the files of `decoded_cache`, which Python reads and writes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import tensorflow as tf

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.arch.spec import band_pixel
from deeplab_tf.config import DataConfig
from deeplab_tf.data import transforms, windows
from deeplab_tf.data.augment import DRAWS, Augmentation, make_augmentation
from deeplab_tf.data.batches import Batches
from deeplab_tf.data.crossing import byte_picture
from deeplab_tf.data.decoded_cache import open_cache
from deeplab_tf.data.examples import (
    ExampleSource,
    open_records,
    report_skipped,
    sound_example,
    try_example,
    without_autograph,
)
from deeplab_tf.data.labels import checked_example, checked_label
from deeplab_tf.data.unlabelled import Mixed
from deeplab_tf.errors import DeepLabError

_ORDER = -1  # the key of an epoch's order; records draw with their numbers, 0 and up
_ROUNDS = 16
_OTHER_SEED = 1 << 30  # added to that of the labelled pictures, for those without labels


class BatchPart(NamedTuple):
    """The part of each batch that one of several input pipelines gives.

    Attributes:
      number: of this pipeline, from 0.
      parts: the number of pipelines. In training each gives consecutive examples of every batch, 1 / parts of it; in
        evaluation it gives one in `parts` examples.
      pieces: training splits the part into this number of equal batches, one for each device; evaluation ignores it.
    """

    number: int = 0
    parts: int = 1
    pieces: int = 1


_WHOLE = BatchPart()


def make_dataset(
    config: DataConfig,
    *,
    split: str,
    training: bool,
    seed: int = 0,
    start_step: int = 0,
    part: BatchPart | tuple[int, int] = _WHOLE,
) -> Batches:
    """Returns the batches of a split, with the order of operations of the release (datasets/data_generator.py).

    Each is {"image": float32 [b, h, w, 3] in 0..255, or as many channels as the photographs have bands, "label": int32
    [b, h, w, 1], "image_name": string [b], "height", "width": int64 [b], the stored sizes}. The network subtracts the
    mean. `make_dataset(...).for_fit()` gives the tuples that Keras's fit takes.

    Training repeats for ever, in another order each epoch, with static shapes: random scale, crop and flip. Evaluation
    gives every example once, in order; the last batch may be smaller. Its batches also have "original_image" (uint8,
    after min_resize_value, before padding) and "size" (int32 [b, 2], the height and width of that). It pads images at
    the bottom right to the crop size, or to the largest of their batch; an image larger than the crop stays whole, and
    the predict function of the network pads it as it needs.

    Args:
      config: the options; `dataset_dir` is needed, and `crop_size` for training.
      split: the split whose shards are read. The labels of `test` are not read: all are the ignore label.
      training: augment, shuffle and repeat.
      seed: of the order and of the random numbers.
      start_step: the number of batches to leave out, at no cost.
      part: the part of each batch to give, where several pipelines share the batches: (number, parts), or a BatchPart.

    Raises:
      DeepLabError: an option is missing, there are no records, or a file is damaged where records begin. A fault found
        during the iteration is a tf.errors.InvalidArgumentError; `examples.named_batches` turns it into a DeepLabError.

    Example:
      Four drawn pictures, written as records and read as training batches of two crops of 33 x 33 pixels:

      >>> from deeplab_tf.catalog.datasets import DATASETS
      >>> from deeplab_tf.data import build, folder, shapes
      >>> pictures = shapes.write_shapes("pictures", splits={"train": 4}, height=40, width=50)
      >>> counts = build.build_records(folder.folder_splits(pictures), DATASETS["shapes"], "records")
      >>> config = deeplab_tf.DataConfig("shapes", "records", crop_size=(33, 33), batch_size=2)
      >>> batch = next(iter(deeplab_tf.make_dataset(config, split="train", training=True)))
      >>> batch["image"].shape, batch["label"].shape
      (TensorShape([2, 33, 33, 3]), TensorShape([2, 33, 33, 1]))
    """
    source = open_records(config, split)
    part = BatchPart(*part)
    _require_parts(config, part)
    if training:
        batches = training_batches(source, seed, start_step=start_step, part=part)
    else:
        batches = evaluation_batches(source, start_step=start_step, part=part)
    return Batches(batches, source.facts.ignore_label)


def _require_parts(config: DataConfig, part: BatchPart) -> None:
    devices = part.parts * part.pieces
    if not 0 <= part.number < part.parts or config.batch_size % devices:
        raise DeepLabError(
            f"batch_size={config.batch_size}: expected a multiple of {devices}, the devices that share it"
        )


# ---- training


def training_batches(
    source: ExampleSource | Mixed,
    seed: int,
    *,
    start_step: int = 0,
    part: BatchPart = _WHOLE,
    steps: int | None = None,
    as_bytes: bool = False,
) -> tf.data.Dataset:
    """Returns the batches of records that are open already; see `make_dataset` with training=True.

    Args:
      source: the records, or these with pictures without labels beside them.
      seed: of the order and of the random numbers.
      start_step: the number of batches to leave out.
      part: the part of each batch to give.
      steps: the number of batches, before a part is split into pieces; None: without end.
      as_bytes: give labels as uint8, and images as `crossing.BytePictures` where all of their pixels are whole.
    """
    source, unlabelled = source if isinstance(source, Mixed) else (source, None)
    config = source.config
    _require_parts(config, part)
    size = config.batch_size // part.parts
    augmentation = make_augmentation(config, _pad_values(source)[0])
    example_of = _training_example(source, seed, augmentation, as_bytes=as_bytes)
    if unlabelled:
        others = unlabelled.open(config, source.facts)
        other_of = _training_example(others, seed + _OTHER_SEED, augmentation, as_bytes=as_bytes)
        example_of = unlabelled.mixed(config.batch_size, example_of, other_of)

    def example_at(row: tf.Tensor) -> dict[str, Any]:
        # Counted over all pipelines, so that the examples of a step do not depend on how many share it.
        return example_of(row // size * config.batch_size + part.number * size + tf.math.floormod(row, size))

    rows = tf.data.Dataset.counter(tf.constant(start_step * size, tf.int64), tf.constant(1, tf.int64))
    rows = rows if steps is None else rows.take(steps * size)
    examples = rows.map(without_autograph(example_at), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = examples.batch(size // part.pieces, drop_remainder=True)
    if augmentation:
        mix_batch = without_autograph(augmentation.mix_batch)
        batches = batches.map(mix_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def _training_example(
    source: ExampleSource, seed: int, augmentation: Augmentation | None, *, as_bytes: bool
) -> Callable[[tf.Tensor], dict[str, Any]]:
    """Returns the function that makes the example at a position (int64 scalar) of the sequence of all epochs."""
    config = source.config
    crop_size = config.crop_size
    if crop_size is None:
        raise DeepLabError("crop_size is not set; training crops to it, for instance crop_size=513,513")
    scales = transforms.scale_values(config.min_scale_factor, config.max_scale_factor, config.scale_factor_step_size)
    pixel, ignored = _pad_values(source)
    if config.color_jitter and source.channels != 3:
        raise DeepLabError(
            f"color_jitter={','.join(map(str, config.color_jitter))}: changes the colours of RGB, and the photographs "
            f"have {source.channels} bands; leave it out"
        )
    # A picture that is resized in any way has fractions, and so have most augmentations.
    as_stored = scales.tolist() == [1.0] and config.min_resize_value is None and source.dtype == tf.uint8
    cache = None
    if config.decoded_cache:
        cache = open_cache(config.decoded_cache, source.identity, channels=source.channels, dtype=source.dtype)

    def example_of(position: tf.Tensor) -> dict[str, Any]:
        epoch, record = _shuffled(seed, position, source.count)
        draws = tf.random.stateless_uniform([4], tf.stack([_epoch_key(seed, epoch), record]), alg="philox")
        scale = transforms.draw_scale(scales, config.scale_factor_step_size, draws[0])

        def window_of(shape: tf.Tensor) -> windows.Window:
            return windows.draw_window(shape, draws[1:], scale=scale, crop_size=crop_size)

        # Of a JPEG only the part under the window is decoded, unless the whole is resized first, or kept in the cache.
        partly = window_of if config.min_resize_value is None and not cache else None
        if cache:
            example = cache.example(record, lambda: checked_example(source, record))
        else:
            example = checked_example(source, record, partly)
        extra = {"skipped": example["skipped"]} if config.skip_corrupt_records else {}
        image, label = _resized(config, example["image"], example["label"])
        window = window_of(example["shape"] if partly else tf.shape(image)[:2])
        label = windows.label_window(label, window, crop_size, ignored)
        label = label if as_bytes and not augmentation else tf.cast(label, tf.int32)
        if as_bytes and as_stored and not augmentation:
            image = byte_picture(image, window, example["corner"], crop_size, pixel)
            return {"image": image, "label": label, **_stored_facts(example), **extra}
        image = windows.image_window(image, window, example["corner"])
        if augmentation:
            extra[DRAWS] = augmentation.draws(_epoch_key(seed, epoch), record)
            image = augmentation.augment_image(image, extra[DRAWS])
        image = windows.fill(image, window, crop_size, pixel)
        return {"image": image, "label": label, **_stored_facts(example), **extra}

    return example_of


def _stored_facts(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {key: example[key] for key in ("image_name", "height", "width")}


def _epoch_key(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the int64 key under which the random numbers of an epoch are drawn."""
    return tf.constant(seed % 2**31, tf.int64) * 1_000_003 + epoch


def _shuffled(seed: int, position: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns epoch and record (int64) at a position (int64) of the endless sequence of `count` records.

    Each epoch is a permutation of all records. Unlike the release's shuffle buffer of 100, this mixes the whole data
    set, and it needs no memory.
    """
    epoch = position // count
    # A shuffle buffer would have to be filled and replayed before a resumed run could go on. RandomIndexShuffle is a
    # cipher instead: it gives the record at any position at once, and never the same record twice in an epoch. But its
    # permutations are only as good as its key: with a key of small numbers, and with the four rounds of the public
    # function, they leave most records in their places. Hence a key of drawn bits, and _ROUNDS rounds.
    key_seed = tf.stack([_epoch_key(seed, epoch), tf.constant(_ORDER, tf.int64)])
    key = tf.random.stateless_uniform(
        [3],
        key_seed,
        minval=None,  # pyright: ignore[reportArgumentType] (the stubs lack None, which means all of uint32)
        maxval=None,
        dtype=tf.uint32,
        alg="philox",
    )
    record = tf.raw_ops.RandomIndexShuffle(
        index=tf.math.floormod(position, count),
        seed=tf.cast(key, tf.int64),
        max_index=tf.constant(count - 1, tf.int64),
        rounds=_ROUNDS,
    )
    return epoch, record


def _pad_values(source: ExampleSource) -> tuple[tuple[float, ...], int]:
    """Returns the colour of the images' padding (of bands beyond RGB their mean), and the label of the labels'."""
    image = source.facts.image
    pixel = ARCHITECTURES[source.config.model_variant].pad_pixel
    return (pixel if image is None else band_pixel(pixel, image.channels, image.mean[3:])), source.facts.ignore_label


def _resized(config: DataConfig, image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    if config.min_resize_value is None:
        return image, label
    height, width = tf.unstack(tf.shape(image)[:2])
    size = transforms.range_size(
        height,
        width,
        minimum=config.min_resize_value,
        maximum=config.max_resize_value,
        factor=config.resize_factor,
    )
    return transforms.resize_image(image, size), transforms.resize_label(label, size)


def _shown(source: ExampleSource, image: tf.Tensor) -> tf.Tensor:
    """Returns the picture to look at, uint8 [h, w, 3]."""
    if source.facts.image is None:
        return tf.cast(image, tf.uint8)
    shown = tf.gather(image, list(source.facts.image.shown), axis=-1)
    return tf.cast(tf.clip_by_value(tf.round(shown), 0.0, 255.0), tf.uint8)


# ---- evaluation


def evaluation_batches(source: ExampleSource, *, start_step: int = 0, part: BatchPart = _WHOLE) -> tf.data.Dataset:
    """Returns the batches of records that are open already; see `make_dataset` with training=False."""
    config = source.config
    pixel, ignored = _pad_values(source)

    def example_at(record: tf.Tensor) -> dict[str, tf.Tensor]:
        if config.skip_corrupt_records:
            good, example = try_example(source, record)
            tf.cond(good, lambda: 0, lambda: report_skipped(source, record))
        else:
            good = tf.constant(True)
            example = sound_example(source, record)
        original, label = _resized(config, example["image"], checked_label(source, record, example))
        image = tf.cast(original, tf.float32)
        label = tf.cast(label, tf.int32)
        if config.crop_size:
            image = transforms.pad_to(image, config.crop_size, pixel)
            label = transforms.pad_to(label, config.crop_size, ignored)
        return {
            # A batch can be padded only with one number for all channels: subtract the padding's colour here, so that
            # the number is 0, and add it again when the batch is made.
            "image": image - tf.constant(pixel),
            "label": label,
            "original_image": _shown(source, original),
            "size": tf.shape(original)[:2],
            **_stored_facts(example),
            "good": good,
        }

    first = start_step * config.batch_size + part.number
    rows = tf.data.Dataset.range(first, max(first, source.count), part.parts)
    examples = rows.map(without_autograph(example_at), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if config.skip_corrupt_records:
        examples = examples.filter(lambda example: example["good"])
    examples = examples.map(lambda example: {key: value for key, value in example.items() if key != "good"})
    specs = cast(dict[str, tf.TensorSpec], examples.element_spec)
    padding = {key: tf.constant(0, spec.dtype) for key, spec in specs.items() if key != "image_name"}
    padding |= {"label": tf.constant(ignored), "image_name": ""}
    batches = examples.padded_batch(config.batch_size // part.parts, padding_values=padding)
    restore_colour = without_autograph(lambda batch: {**batch, "image": batch["image"] + tf.constant(pixel)})
    return batches.map(restore_colour).prefetch(tf.data.AUTOTUNE)
