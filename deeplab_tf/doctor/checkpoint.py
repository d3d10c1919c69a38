"""The check of weights: what they are, what they were trained on, and which splits they may be scored on."""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.doctor.findings import ERROR, NOTE, WARNING, Diagnosis, Finding
from deeplab_tf.doctor.network import network_findings
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.loading import Loaded, open_model
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.tf1 import variable_map
from deeplab_tf.zoo.lookup import CHECKPOINTS, find_by_file

_LOGITS = "logits/"
_LARGEST_INITIAL = 0.0201  # initial logits are drawn within two standard deviations of 0.01


def has_fresh_head(weights: dict[str, np.ndarray]) -> bool:
    """Returns whether the logits look as before the first update: small weights, and biases that are exactly 0.

    weights: the release's name of a variable -> its value.
    """
    logits = {name: value for name, value in weights.items() if name.startswith(_LOGITS)}
    biases = [value for name, value in logits.items() if name.endswith("/biases")]
    return (
        bool(biases)
        and not any(map(np.any, biases))
        and all(np.abs(v).max() <= _LARGEST_INITIAL for v in logits.values())
    )


def check_checkpoint(path: str | os.PathLike, *, eval_split: str | None = None) -> Diagnosis:
    """Returns the facts about weights and the findings on them.

    Args:
      path: anything that `weights.loading.open_model` opens.
      eval_split: the split that they will be scored on.
    """
    try:
        loaded = open_model(path)
    except DeepLabError as error:
        return Diagnosis(str(path), (Finding("unreadable", ERROR, (str(error),)),))
    card = loaded.card
    weights = {name: np.asarray(variable) for name, variable in variable_map(loaded.model).items()}
    findings = [*_identity(loaded, weights), *_training(card, str(path)), *_scoring(card, str(path), eval_split)]
    findings += [*_values(weights), *network_findings(card.config)]
    if card.kind == "segmentation" and has_fresh_head(weights):
        lines = ("the logits are as they are drawn before the first update: nothing was learned, or not loaded",)
        findings.append(Finding("untrained-head", ERROR, lines, "give the checkpoint of a later step"))
    facts = {**card.to_json(), "notes": list(loaded.notes), "sha256": loaded.receipt.sha256}
    return Diagnosis(str(path), tuple(findings), facts)


def _identity(loaded: Loaded, weights: dict[str, np.ndarray]) -> Iterator[Finding]:
    card = loaded.card
    config = card.config
    changed = {name: value for name, value in config.to_json().items() if name not in ("model_variant", "num_classes")}
    options = ", ".join(f"{name}={value}" for name, value in changed.items())
    what = f"for {config.num_classes} classes" if card.kind == "segmentation" else "a backbone without classes"
    size = f"{len(weights)} variables, {sum(value.size for value in weights.values()):,} values"
    steps = loaded.state.get("global_step")
    lines = [f"{config.model_variant}, {what}: {size}" + (f", after {int(steps):,} updates" if steps else "")]
    yield Finding("what-it-is", NOTE, (*lines, *([options] if options else []), *loaded.notes))


def _training(card: ModelCard, path: str) -> Iterator[Finding]:
    entry = CHECKPOINTS.get(path) or find_by_file(path) or find_by_file(card.source_checkpoint or "")
    lines = [f"trained on {card.dataset} {card.train_split}"] if card.train_split else []
    if entry and entry.pretraining:
        lines.append(f"before that on {', '.join(entry.pretraining)} ({entry.name})")
    elif card.source_checkpoint and card.source_checkpoint != path:
        lines.append(f"from {card.source_checkpoint}")
    if card.train_split or card.kind == "backbone":
        yield Finding("trained-on", NOTE, tuple(lines or ["a backbone to start training from"]))
    else:
        lines = ("nothing says which split it was trained on", *lines)
        cure = "do not trust a score before you know: convert it by its zoo name, or from the run's folder"
        yield Finding("unknown-training", WARNING, lines, cure)


def _scoring(card: ModelCard, path: str, eval_split: str | None) -> Iterator[Finding]:
    """Yields the splits that the weights have not seen, as far as their description says."""
    card = dataclasses.replace(card, source_checkpoint=card.source_checkpoint or path)
    if card.train_split:
        splits = DATASETS[card.dataset].splits if card.dataset in DATASETS else ()
        unseen = [split for split in splits if not card.seen(card.dataset, split)]
        shown = ", ".join(unseen) or ("its test server alone" if splits else f"what has no image of {card.train_split}")
        yield Finding("may-be-scored-on", NOTE, (f"of {card.dataset}: {shown}",))
    if eval_split:
        yield from seen_findings(card, eval_split)


def seen_findings(card: ModelCard, eval_split: str) -> Iterator[Finding]:
    """Yields a finding if the weights have seen the split that they will be scored on, or if that is unknown."""
    reason = card.seen(card.dataset, eval_split)
    if reason:
        yield Finding("contaminated", WARNING, (reason,), "score another split, or mark the score as contaminated")
    elif card.dataset in DATASETS and eval_split not in DATASETS[card.dataset].splits:
        known = ", ".join(DATASETS[card.dataset].splits)
        lines = (f"--eval_split={eval_split}: {card.dataset} has no split of that name; expected {known}",)
        yield Finding(
            "unknown-split", WARNING, lines, "only you know whether the weights have seen a split of your own"
        )


def _values(weights: dict[str, np.ndarray]) -> Iterator[Finding]:
    bad = [name for name, value in weights.items() if not np.isfinite(value).all()]
    if bad:
        lines = (f"{len(bad)} variables hold values that are not finite: {', '.join(bad[:3])}",)
        yield Finding("not-finite", ERROR, lines, "training diverged: take an earlier checkpoint")
    variances = {name: value for name, value in weights.items() if name.endswith("/moving_variance")}
    negative = [name for name, value in variances.items() if (value < 0).any()]
    if negative:
        lines = (f"{len(negative)} moving variances are below 0: {', '.join(negative[:3])}",)
        yield Finding("batch-norm-statistics", ERROR, lines, "the statistics are damaged: take another checkpoint")
    means = [value for name, value in weights.items() if name.endswith("/moving_mean")]
    epsilons = [a.batch_norm.epsilon for a in ARCHITECTURES.values() if a.batch_norm]
    if (
        means
        and not any(map(np.any, means))
        and all(np.ptp(v) == 0 and 1 - v.flat[0] < 2 * max(epsilons) for v in variances.values())
    ):
        lines = ("batch norm is folded into scale and shift, or has never seen a batch: all means 0, all variances 1",)
        cure = "fine-tune with --fine_tune_batch_norm=false, or --unfold_batch_norm=20"
        yield Finding("folded-batch-norm", NOTE, lines, cure)
