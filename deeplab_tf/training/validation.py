"""Scores of a network during its training: when they are due, which is the best, and when to stop early."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from deeplab_tf.config import Experiment
from deeplab_tf.data.examples import open_records
from deeplab_tf.data.parallel import kept_parallel
from deeplab_tf.data.pipeline import evaluation_batches
from deeplab_tf.evaluation.evaluate import score, tagged_scores
from deeplab_tf.inference.predictor import padding_to
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.names import AVERAGE
from deeplab_tf.weights.run_directory import BEST, SCORES, RunDirectory
from deeplab_tf.weights.tf1 import variable_map


@contextlib.contextmanager
def averages_in_place(weights: Mapping[str, tf.Variable], state: Mapping[str, tf.Variable]) -> Iterator[None]:
    """Gives the weights their moving averages, where `state` has some, for the duration of the context."""
    suffix = f"/{AVERAGE}"
    pairs = [(weights[name.removesuffix(suffix)], v) for name, v in state.items() if name.endswith(suffix)]
    kept = [weight.numpy() for weight, _ in pairs]
    try:
        for weight, average in pairs:
            weight.assign(average.numpy())
        yield
    finally:
        for (weight, _), value in zip(pairs, kept, strict=True):
            weight.assign(value)


class Validation:
    """The scores of one run, in its scores.jsonl; with `keep_best`, the best weights too, in its folder best.

    Weights with a moving average are scored, and kept, by their averages.
    """

    def __init__(self, experiment: Experiment, card: ModelCard) -> None:
        self._run = experiment.run
        self._evaluation = experiment.evaluation
        self._card = card
        data = dataclasses.replace(
            experiment.data,
            crop_size=self._evaluation.eval_crop_size,
            batch_size=self._evaluation.eval_batch_size,
        )
        self._records = open_records(data, self._evaluation.eval_split)
        self._directory = RunDirectory.of(experiment.run)
        self._best = RunDirectory(self._directory.path / BEST)

    def due(self, step: int, *, last: bool, saved: bool) -> bool:
        """Returns whether to score the weights after `step` updates.

        Args:
          step: the number of updates.
          last: whether the run ends with it.
          saved: whether the weights were just saved; they are then scored unless eval_interval_steps says when.
        """
        every = self._run.eval_interval_steps
        return last or (step % every == 0 if every else saved)

    def has_scored(self, step: int) -> bool:
        """Returns whether the weights after `step` updates have been scored."""
        return any(line["step"] == step for line in self._directory.lines(SCORES))

    def score(self, step: int, model: keras.Model, state: Mapping[str, tf.Variable]) -> dict[str, Any]:
        """Scores `model` on the split and adds a line to scores.jsonl.

        Args:
          step: the number of updates that the weights have had.
          model: the network that is trained.
          state: that of its TrainStep, with the moving averages if there are any.

        Returns:
          What `evaluate` does, and "tags" (the numbers by the release's tags), "best" (whether this is the best score
          of the run so far) and "patience" (False when the run should end).
        """
        weights = {name: variable.value for name, variable in variable_map(model).items()}
        inference = self._evaluation.inference
        with averages_in_place(weights, state):
            batches = evaluation_batches(self._records)
            batches = kept_parallel(batches) if self._run.deterministic else batches
            predictor = padding_to(model, self._evaluation.eval_crop_size)
            scores = score(predictor, batches, inference, ignore_label=self._card.ignore_label)
            # "not <=" also keeps weights whose score is not a number.
            if self._run.keep_best and not scores["miou"] <= self._kept():
                self._keep(step, weights, scores["miou"])
        per_class = [None if math.isnan(iou) else float(iou) for iou in scores["iou_per_class"]]
        line = {"step": step, "miou": scores["miou"], "pixel_accuracy": scores["pixel_accuracy"]}
        self._directory.log({**line, "iou_per_class": per_class, "examples": scores["examples"]}, SCORES)
        tags = tagged_scores(scores, inference)
        return {**scores, "tags": tags, "best": self._best_step() == step, "patience": self.patience()}

    def patience(self) -> bool:
        """Returns whether the run should go on: fewer than early_stop_patience scores came after the best."""
        allowed = self._run.early_stop_patience
        steps = [line["step"] for line in self._directory.lines(SCORES)]
        return not allowed or not steps or len(steps) - 1 - steps.index(self._best_step()) < allowed

    def _best_step(self) -> int:
        return max(self._directory.lines(SCORES), key=lambda line: (line["miou"], -line["step"]))["step"]

    def _kept(self) -> float:
        """Returns the best score whose weights are kept, -1 if there are none."""
        # A resumed run may have lost its line of scores.jsonl but not the weights: folder best has a log of its own.
        latest, lines = self._best.latest(), self._best.lines(SCORES)
        return next((line["miou"] for line in lines[::-1] if latest == self._best.prefix(line["step"])), -1.0)

    def _keep(self, step: int, weights: Mapping[str, tf.Variable], miou: float) -> None:
        self._best.path.mkdir(exist_ok=True)
        self._best.describe(dataclasses.replace(self._card, averages=False))
        # The score first: weights whose score a kill has lost would be replaced by worse ones.
        self._best.log({"step": step, "miou": miou}, SCORES)
        self._best.save(step, {**weights, "global_step": tf.constant(step, tf.int64)}, keep=1)
