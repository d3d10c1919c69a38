"""The measurement of `benchmark --what=train_step`: make_train_step beside a bare step of Keras, and time for data."""

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.benchmarks.pipeline import write_records
from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.network.build import build_model
from deeplab_tf.training.progress import Progress, TrainingObserver
from deeplab_tf.training.step import make_train_step
from deeplab_tf.training.train import train


@dataclasses.dataclass(frozen=True)
class TrainStepScale:
    """The amount that is measured: network, sizes in pixels, steps of a round and of the training run."""

    model_variant: str = "mobilenet_v2"
    depth_multiplier: float = 0.5
    crop: tuple[int, int] = (241, 321)
    batch: int = 8
    steps: int = 5
    picture: tuple[int, int] = (375, 500)
    records: int = 64
    run_steps: int = 60
    log_steps: int = 10


SMALL = TrainStepScale("tiny", 1.0, (33, 33), 2, 1, (30, 40), 4, 4, 2)
_RATE = 1e-4
_MOMENTUM = 0.9
_IGNORED = 255


def bare_step(model: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns a compiled step of stock parts, mean cross entropy and Keras's SGD, which returns the loss."""
    optimizer = keras.optimizers.SGD(_RATE, momentum=_MOMENTUM)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = tf.compat.v1.image.resize(model(images, training=True), labels.shape[1:3], align_corners=True)
            counted = tf.cast(labels != _IGNORED, tf.float32)
            classes = tf.where(labels == _IGNORED, 0, labels)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=classes, logits=logits)
            loss = tf.reduce_sum(losses * counted) / tf.reduce_sum(counted)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    return step


def _model_config(scale: TrainStepScale) -> ModelConfig:
    return ModelConfig(scale.model_variant, depth_multiplier=scale.depth_multiplier, crop_size=scale.crop)


def _steps(scale: TrainStepScale, rounds: int) -> dict[str, list[float]]:
    model = build_model(_model_config(scale))
    config = TrainConfig(base_learning_rate=_RATE, momentum=_MOMENTUM)
    ours = make_train_step(model, config)
    bare = bare_step(model)
    random = np.random.default_rng(0)
    images = tf.constant(random.uniform(0, 255, (scale.batch, *scale.crop, 3)).astype(np.float32))
    labels = tf.constant(random.integers(0, 21, (scale.batch, *scale.crop)).astype(np.int32))

    def seconds(step: Callable[[tf.Tensor, tf.Tensor], Any]) -> float:
        start = time.perf_counter()
        for _ in range(scale.steps - 1):
            step(images, labels)
        result = step(images, labels)
        float(result["total_loss"] if isinstance(result, dict) else result)  # waits for the last step
        return (time.perf_counter() - start) / scale.steps

    times: dict[Any, list[float]] = {ours: [], bare: []}
    for round_number in range(rounds + 1):
        for step, measured in times.items():
            measured.append(seconds(step))
        if round_number == 0:  # the first round traces the steps
            times = {step: [] for step in times}
    network = f"{scale.model_variant} dm {scale.depth_multiplier}"
    title = f"step of {network}, batch {scale.batch} at {scale.crop[0]} x {scale.crop[1]}"
    return {
        f"{title}, s": times[ours],
        f"{title} / bare step of Keras, at most 1.1": [a / b for a, b in zip(times[ours], times[bare], strict=True)],
    }


class _Lines(TrainingObserver):
    """Keeps the lines of the log."""

    def __init__(self) -> None:
        self.log: list[Progress] = []

    def progressed(self, progress: Progress) -> None:
        self.log.append(progress)


def _run(scale: TrainStepScale) -> dict[str, list[float]]:
    """Returns for each line of a training run's log the share of the time that is not spent waiting for data."""
    lines = _Lines()
    with tempfile.TemporaryDirectory() as folder:
        height, width = scale.picture
        records = write_records(os.path.join(folder, "records"), (height, width), "JPEG", scale.records, shards=4)
        data = DataConfig(dataset="cityscapes", dataset_dir=records, crop_size=scale.crop, batch_size=scale.batch)
        run = RunConfig(os.path.join(folder, "run"), log_steps=scale.log_steps)
        config = TrainConfig(base_learning_rate=_RATE, training_number_of_steps=scale.run_steps)
        train(Experiment(_model_config(scale), config, data, run), observer=lines)
    # The first line includes the compilation of the step, during which the pipeline gets ahead.
    title = f"share of a training run on {width} x {height} JPEGs that is not spent waiting, at least 0.9"
    return {title: [1 - line.waiting for line in lines.log[1:]]}


def measure(rounds: int, *, small: bool, announce: Callable[[str], None]) -> dict[str, list[float]]:
    """Returns the figures by name, each a list with one value for each round.

    Args:
      rounds: the number of measurements of each figure.
      small: measure tiny inputs, to try the benchmark; the figures mean nothing.
      announce: called with a line before each part.
    """
    scale = SMALL if small else TrainStepScale()
    announce(f"step: {rounds} rounds")
    figures = _steps(scale, rounds)
    announce(f"training run: {scale.run_steps} steps")
    return figures | _run(scale)
