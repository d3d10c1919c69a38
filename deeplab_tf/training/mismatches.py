"""What cannot be trained: options that fit neither network nor devices (`require_fit`), batches (`fitted_labels`)."""

from typing import cast

import keras
import tensorflow as tf

from deeplab_tf.config import ModelConfig, TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.wrapped import config_of
from deeplab_tf.training import losses


def require_fit(model: keras.Model, config: TrainConfig, *, several: bool) -> None:
    """Raises DeepLabError for options of an update that do not fit the network, or the devices.

    several: whether several of them share a batch.
    """
    built_from = config_of(model)
    losses.class_weights(config.label_weights, built_from.num_classes)
    if config.old_classes >= built_from.num_classes:
        raise DeepLabError(
            f"old_classes={config.old_classes}: expected fewer than the {built_from.num_classes} classes of the "
            "network, the others being the new ones"
        )
    scales = built_from.image_pyramid or (1.0,)
    if len(scales) > 1 and not isinstance(model.output, dict):
        raise DeepLabError(
            f"image_pyramid={scales}: every scale has a loss; build the model with all_scales=True to train it"
        )
    if built_from.quantized:
        _require_fit_quantized(built_from, config, several=several)


def require_teacher(teacher: keras.Model, model: keras.Model, config: TrainConfig) -> None:
    """Raises DeepLabError for a teacher that does not fit the network or the loss."""
    theirs, ours = config_of(teacher), config_of(model)
    if not losses.counts_pixels(config):
        raise DeepLabError(
            f"loss={config.loss} with top_k_percent_pixels={config.top_k_percent_pixels:g}: a teacher's loss is a sum "
            "over all pixels; expected cross_entropy, focal or unbiased, and 1"
        )
    classes = config.old_classes or ours.num_classes
    if theirs.num_classes != classes:
        which = "the old classes" if config.old_classes else "the classes of the network"
        raise DeepLabError(
            f"teacher: has {theirs.num_classes} classes; expected {classes}, {which}; give another network"
        )
    if theirs.input_channels != ours.input_channels:
        raise DeepLabError(
            f"teacher: reads {theirs.input_channels} bands; expected {ours.input_channels}; give another network"
        )


def _require_fit_quantized(built_from: ModelConfig, config: TrainConfig, *, several: bool) -> None:
    if built_from.quantize_as_file:
        raise DeepLabError(
            "quantize_as_file: rounds with the ranges of an 8-bit file, which training would leave; leave it out, and "
            "the quantised training finds ranges of its own"
        )
    given, precision = f"quantize_delay_step={built_from.quantize_delay_step}", config.mixed_precision
    if precision != "none":
        raise DeepLabError(
            f"mixed_precision={precision} with {given}: ranges of eight bits need float32; expected none"
        )
    if several:
        raise DeepLabError(
            f"{given} on several devices: expected one, as in the release (--num_clones=1, --strategy=one_device)"
        )
    if config.freeze != "none":
        raise DeepLabError(
            f"freeze={config.freeze} with {given}: the ranges of the backbone's maps follow each batch; expected "
            "freeze=none, or -1"
        )


def sizes(tensor: tf.Tensor) -> list[int]:
    """Returns the shape of a tensor, which `fitted_labels` has seen to be static."""
    return cast("list[int]", tensor.shape.as_list())


def fitted_labels(model: keras.Model, images: tf.Tensor, labels: tf.Tensor, parts: int) -> tf.Tensor:
    """Returns the labels as [b, h, w]; raises DeepLabError where they do not fit the images, or these the model.

    parts: what the batch is divided by.
    """
    if labels.shape.rank == 4:
        labels = tf.squeeze(labels, axis=3)
    if not images.shape.is_fully_defined() or images.shape[:3] != labels.shape:
        raise DeepLabError(
            f"images {images.shape} and labels {labels.shape}: expected [b, h, w, 3] and [b, h, w] or [b, h, w, 1] of "
            "one fixed size; crop or pad both, and drop an incomplete last batch"
        )
    crop = model.input_shape[1:3]
    if None not in crop and tuple(images.shape[1:3]) != tuple(crop):
        raise DeepLabError(f"images {images.shape}: the model was built for crop_size={crop}; give both the same size")
    if sizes(images)[0] % parts:
        raise DeepLabError(f"gradient_accumulation_steps={parts}: does not divide the batch of {images.shape[0]}")
    return labels
