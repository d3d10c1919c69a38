"""Batch norm's moving statistics, measured on images: for weights that have none, and after a short training run."""

from collections.abc import Collection, Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.network.layers import FusedBatchNorm
from deeplab_tf.network.stepped import as_trained

_Moments = tuple[np.ndarray, np.ndarray]


def _norms(model: keras.Model, scopes: Collection[str] | None = None) -> list[FusedBatchNorm]:
    norms = [layer for layer in model.layers if isinstance(layer, FusedBatchNorm)]
    return [norm for norm in norms if scopes is None or norm.name.replace(".", "/") in scopes]


def _measured(
    model: keras.Model,
    norms: list[FusedBatchNorm],
    batches: Iterable,
    *,
    training: bool,
    still: Collection[str] = (),
) -> Iterator[_Moments]:
    """Yields mean and variance, float64 [channels], of each norm's input over all batches, without dropout.

    still: names of the norms that use their moving statistics in training too.
    """
    probe = keras.Model(model.input, [norm.input for norm in norms])

    @tf.function(autograph=False)
    def moments(images: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        return [tf.nn.moments(tf.cast(x, tf.float32), [0, 1, 2]) for x in probe(images, training=training)]

    with as_trained(model, TrainConfig(dropout=False), still=still):
        of_batches = [moments(tf.convert_to_tensor(images, tf.float32)) for images in batches]
    for of_norm in zip(*of_batches, strict=True):
        means, variances = (np.stack(part).astype(np.float64) for part in zip(*of_norm, strict=True))
        mean = means.mean(axis=0)
        yield mean, (variances + (means - mean) ** 2).mean(axis=0)


def unfold_batch_norm(model: keras.Model, batches: Iterable, *, scopes: Collection[str] | None = None) -> None:
    """Gives batch norms the statistics of real images, in place; in inference the network stays the same function.

    Weights that were published for inference have their batch norm folded into scale and shift: moving mean 0,
    variance 1. Trained with statistics of the batch, the network would be another function from the first step. Here
    mean and variance of each norm's input become its moving statistics, and gamma and beta change to undo that.

    Args:
      model: from build_model or load.
      batches: images [b, h, w, 3], RGB in 0..255, all of one shape; 20 batches of 8 are plenty.
      scopes: TF1 scopes (".../BatchNorm") of the norms that are unfolded; None: all.
    """
    norms = _norms(model, scopes)
    for norm, (mean, variance) in zip(norms, _measured(model, norms, batches, training=False), strict=True):
        gamma, beta, old_mean, old_variance = (
            np.asarray(v, np.float64) for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        )
        slope = gamma / np.sqrt(old_variance + norm.fused_epsilon)
        norm.gamma.assign(slope * np.sqrt(variance + norm.fused_epsilon))
        norm.beta.assign(beta + slope * (mean - old_mean))
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance)


def recalibrate_batch_norm(model: keras.Model, batches: Iterable, *, still: Collection[str] = ()) -> None:
    """Measures the moving statistics of the batch norms anew, in place, with each batch normalised by its own.

    The head's averages move by 0.0003 a step, so that after a run of a few thousand steps they still belong to older
    weights.

    Args:
      model: from build_model or load.
      batches: as in `unfold_batch_norm`.
      still: names of the norms that keep, and use, the statistics that they have.
    """
    norms = [norm for norm in _norms(model) if norm.name not in still]
    moments = _measured(model, norms, batches, training=True, still=still)
    for norm, (mean, variance) in zip(norms, moments, strict=True):
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance)
