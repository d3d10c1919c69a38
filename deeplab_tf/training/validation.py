"""Scores of a network while it is trained: when they are due, which was the best, and when there is no use going on."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping

import keras
import tensorflow as tf

from deeplab_tf.config import Experiment
from deeplab_tf.data.examples import open_records
from deeplab_tf.data.pipeline import evaluation_batches
from deeplab_tf.evaluation.evaluate import score, tagged_scores
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.names import AVERAGE
from deeplab_tf.weights.run_directory import SCORES, RunDirectory
from deeplab_tf.weights.tf1 import variable_map

BEST = "best"


@contextlib.contextmanager
def averages_in_place(weights: Mapping[str, tf.Variable], state: Mapping[str, tf.Variable]) -> Iterator[None]:
    """Gives the weights their moving averages, where `state` has some, and afterwards their values again."""
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
    """The scores of one run, in its scores.jsonl; with `keep_best`, the weights of the best in its folder best.

    Weights with a moving average are scored, and kept, by their averages.
    """

    def __init__(self, experiment: Experiment, card: ModelCard):
        self._run = experiment.run
        self._evaluation = evaluation = experiment.evaluation
        self._card = card
        data = dataclasses.replace(
            experiment.data, crop_size=evaluation.eval_crop_size, batch_size=evaluation.eval_batch_size
        )
        self._records = open_records(data, evaluation.eval_split)
        self._directory = RunDirectory(experiment.run.train_logdir)
        self._best = RunDirectory(self._directory.path / BEST)

    def due(self, step: int, *, last: bool, saved: bool) -> bool:
        """Returns whether the weights after `step` updates, the last or just saved ones perhaps, are scored now."""
        every = self._run.eval_interval_steps
        return last or (step % every == 0 if every else saved)

    def score(self, step: int, model: keras.Model, state: Mapping[str, tf.Variable]) -> dict:
        """Scores `model` and notes it.

        Returns what `evaluate` does, and "tags" (the numbers by the release's tags), "best" (of the run so far) and
        "patience" (False when the run should end).
        """
        weights = {name: variable.value for name, variable in variable_map(model).items()}
        inference = self._evaluation.inference
        with averages_in_place(weights, state):
            batches = evaluation_batches(self._records)
            scores = score(model, batches, inference, ignore_label=self._card.ignore_label)
            if self._run.keep_best and not scores["miou"] <= self._kept():
                self._keep(step, weights, scores["miou"])
        per_class = [None if math.isnan(iou) else float(iou) for iou in scores["iou_per_class"]]
        line = {"step": step, "miou": scores["miou"], "pixel_accuracy": scores["pixel_accuracy"]}
        self._directory.log({**line, "iou_per_class": per_class, "examples": scores["examples"]}, SCORES)
        tags = tagged_scores(scores, inference)
        return {**scores, "tags": tags, "best": self._best_step() == step, "patience": self.patience()}

    def patience(self) -> bool:
        """Returns whether the run should go on: early_stop_patience scores have not yet passed since the best."""
        allowed = self._run.early_stop_patience
        steps = [line["step"] for line in self._directory.lines(SCORES)]
        return not allowed or not steps or len(steps) - 1 - steps.index(self._best_step()) < allowed

    def _best_step(self) -> int:
        return max(self._directory.lines(SCORES), key=lambda line: (line["miou"], -line["step"]))["step"]

    def _kept(self) -> float:
        """The best score whose weights are kept; a resumed run may have lost the line but not the weights."""
        latest, lines = self._best.latest(), self._best.lines(SCORES)
        return max((line["miou"] for line in lines if latest == self._best.prefix(line["step"])), default=-1.0)

    def _keep(self, step: int, weights: Mapping[str, tf.Variable], miou: float):
        self._best.path.mkdir(exist_ok=True)
        self._best.describe(dataclasses.replace(self._card, averages=False))
        self._best.save(step, {**weights, "global_step": tf.constant(step, tf.int64)}, keep=1)
        self._best.log({"step": step, "miou": miou}, SCORES)
