"""What `benchmark --what=train_step` measures: make_train_step beside a bare step of Keras, and who waits in a run."""

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.benchmarks.pipeline import write_records
from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.network.model import build_model
from deeplab_tf.training.progress import Progress, TrainingObserver
from deeplab_tf.training.step import make_train_step
from deeplab_tf.training.train import train


@dataclasses.dataclass(frozen=True)
class TrainStepScale:
    """How much is measured: network, pixels, steps of a turn and of the training run."""

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
_RATE, _MOMENTUM, _IGNORED = 1e-4, 0.9, 255


def bare_step(model: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns a compiled step of stock parts, which returns the loss: mean cross entropy, and Keras's SGD."""
    optimizer = keras.optimizers.SGD(_RATE, momentum=_MOMENTUM)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images, labels):
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
    ours, bare = make_train_step(model, config), bare_step(model)
    random = np.random.default_rng(0)
    images = tf.constant(random.uniform(0, 255, (scale.batch, *scale.crop, 3)).astype(np.float32))
    labels = tf.constant(random.integers(0, 21, (scale.batch, *scale.crop)).astype(np.int32))

    def seconds(step) -> float:
        start = time.perf_counter()
        for _ in range(scale.steps):
            found = step(images, labels)
        float(found["total_loss"] if isinstance(found, dict) else found)
        return (time.perf_counter() - start) / scale.steps

    ways = {ours: [], bare: []}
    for round_number in range(rounds + 1):
        for step, times in ways.items():
            times.append(seconds(step))
        if not round_number:  # it traces
            ways = {step: [] for step in ways}
    network = f"{scale.model_variant} dm {scale.depth_multiplier}"
    title = f"step of {network}, batch {scale.batch} at {scale.crop[0]} x {scale.crop[1]}"
    return {
        f"{title}, s": ways[ours],
        f"{title} / bare step of Keras, at most 1.1": [a / b for a, b in zip(ways[ours], ways[bare], strict=True)],
    }


class _Lines(TrainingObserver):
    """Keeps the lines of the log."""

    def __init__(self):
        self.log: list[Progress] = []

    def progressed(self, progress: Progress) -> None:
        self.log.append(progress)


def _run(scale: TrainStepScale) -> dict[str, list[float]]:
    """Returns the share of the time that is not spent waiting for data, of each stretch of a training run."""
    lines = _Lines()
    with tempfile.TemporaryDirectory() as folder:
        height, width = scale.picture
        place = write_records(os.path.join(folder, "records"), (height, width), "JPEG", scale.records, shards=4)
        data = DataConfig(dataset="cityscapes", dataset_dir=place, crop_size=scale.crop, batch_size=scale.batch)
        run = RunConfig(os.path.join(folder, "run"), log_steps=scale.log_steps)
        config = TrainConfig(base_learning_rate=_RATE, training_number_of_steps=scale.run_steps)
        train(Experiment(_model_config(scale), config, data, run), observer=lines)
    # The first stretch compiles the step, which leaves the pipeline time to hurry ahead.
    title = f"share of a training run on {width} x {height} JPEGs that is not spent waiting, at least 0.9"
    return {title: [1 - line.waiting for line in lines.log[1:]]}


def measure(rounds: int, *, small: bool, tell: Callable[[str], None]) -> dict[str, list[float]]:
    """Returns the figures by name, a list of one for each round. `tell` hears what is being measured."""
    scale = SMALL if small else TrainStepScale()
    tell(f"step: {rounds} rounds")
    figures = _steps(scale, rounds)
    tell(f"training run: {scale.run_steps} steps")
    return figures | _run(scale)
