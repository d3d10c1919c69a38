"""The check of a training run: its options, its folder and its log."""

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DEFAULT_DATASET
from deeplab_tf.config import DERIVED, DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.doctor.checkpoint import seen_findings
from deeplab_tf.doctor.findings import ERROR, NOTE, WARNING, Diagnosis, Finding
from deeplab_tf.doctor.network import training_findings
from deeplab_tf.documents.json_files import read_json
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.run_directory import METRICS, RUN_FILE, RunDirectory
from deeplab_tf.weights.sources import MODEL_FILE, open_source
from deeplab_tf.weights.tf1 import variable_map

_FOLLOWING = {"dataset", *(name for fields in DERIVED.values() for name in fields)}  # follow from other options
_SHOWN = 12  # differences from a recipe that a finding lists
_STUCK = 0.9  # a loss above this share of the loss of guessing has not learned


def options_of(recipe: Experiment) -> dict[str, object]:
    """Returns all options of a recipe but those of its network, by name and as JSON types."""
    parts = (recipe.run, recipe.train, recipe.data)
    return json.loads(json.dumps({name: value for part in parts for name, value in vars(part).items()}))


def default_split(dataset: str | None) -> str:
    """Returns the split that a data set is scored on."""
    return "val_fine" if dataset == "cityscapes" else "val"


def check_run(
    train_logdir: str | os.PathLike, recipes: Mapping[str, Experiment], *, eval_split: str | None = None
) -> Diagnosis:
    """Returns the facts about a training run and the findings on it, from its folder alone.

    Args:
      train_logdir: the folder.
      recipes: name -> recipe to compare the run's options with; of several, the most similar one with the run's network
        and data set.
      eval_split: the split that its weights will be scored on.

    Raises:
      DeepLabError: there is no such folder. Anything else that is wrong becomes a finding.
    """
    directory = RunDirectory(train_logdir)
    if not directory.path.is_dir():
        raise DeepLabError(f"--train_logdir={train_logdir}: no such folder; expected that of a training run")
    findings = list(_folder(directory))
    card, options = _described(directory, findings)
    facts = {"checkpoints": directory.steps()}
    if card and options:
        config = card.config
        dataset = card.dataset
        findings += [*_same_network(card, options), *training_findings(config, options)]
        findings += [
            *_newest(directory, config),
            *_log(directory, config),
            *_unfinished(directory, options),
            *_deviations(options, config, dataset, recipes),
        ]
        findings += seen_findings(card, eval_split or default_split(dataset))
        facts |= {"dataset": dataset, "train_split": card.train_split, "model": config.to_json()}
    return Diagnosis(_subject(directory, card), tuple(findings), facts)


def _subject(directory: RunDirectory, card: ModelCard | None) -> str:
    steps = directory.steps()
    newest = f"newest checkpoint at step {steps[-1]}" if steps else "no checkpoint yet"
    network = f"{card.config.model_variant} on {card.dataset} {card.train_split}, " if card else ""
    return f"{directory.path}: {network}{newest}"


# ---- the folder


def _described(directory: RunDirectory, findings: list[Finding]) -> tuple[ModelCard | None, dict | None]:
    """Returns the descriptions of model and run in the folder, and adds their faults to `findings`."""
    files = [directory.path / name for name in (MODEL_FILE, RUN_FILE)]
    card = None
    options = None
    try:
        card = ModelCard.read(directory.path) if files[0].is_file() else None
        options = _options(files[1]) if files[1].is_file() else None
    except (DeepLabError, OSError) as error:
        lines = (f"the description of the run cannot be read: {error}",)
        findings.append(Finding("foreign-directory", ERROR, lines, "train in another folder"))
        return card, None
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        what = f"{'checkpoints, but ' if directory.steps() else ''}no {' and no '.join(missing)}"
        lines = (f"{what}: this is not a run of deeplab-tf train (of TensorFlow 1, or copied?)",)
        findings.append(Finding("foreign-directory", WARNING, lines, "look at the weights by --checkpoint"))
    return card, options


def _options(file: files.AnyPath) -> dict:
    """Returns the options of a run; raises DeepLabError if the file does not hold the options of a run."""
    try:
        options = read_json(file, dict[str, Any])
        ModelConfig.from_json(options["model"], source=str(file))
        for part in (TrainConfig, DataConfig, RunConfig):
            names = {field.name for field in dataclasses.fields(part)} & options.keys()
            part(**{name: options[name] for name in names})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise DeepLabError(f"{file}: not the options of a run ({reason})") from None
    return options


def _folder(directory: RunDirectory) -> Iterator[Finding]:
    """Yields findings on the files of the folder, by their names."""
    state = directory.path / "checkpoint"
    steps = directory.steps()
    named = re.search(r'^model_checkpoint_path:\s*"([^"]+)"', _text(state), re.MULTILINE)
    if named and steps and pathlib.PurePath(named[1]).name != directory.prefix(steps[-1]).name:
        lines = (f"the file checkpoint names {named[1]}, the newest one here is {directory.prefix(steps[-1]).name}",)
        cure = "checkpoints were deleted or copied in by hand: training goes on from the newest, eval too"
        yield Finding("stale-state", WARNING, lines, cure)
    numbered = r"model\.ckpt-[0-9]+\.index"
    others = [file.name for file in directory.path.glob("*.index") if not re.fullmatch(numbered, file.name)]
    others += [f"{prefix.name}.index" for prefix in directory.odd()]
    if others:
        lines = (f"other checkpoints lie among the run's: {', '.join(sorted(others)[:3])}",)
        yield Finding("foreign-checkpoint", WARNING, lines, "move them to a folder of their own")
    logged = [line["step"] for line in _log_lines(directory)]
    if not logged and _text(directory.path / METRICS).strip():
        lines = (f"{METRICS} holds no line of a run: it is of something else, or damaged",)
        yield Finding("foreign-log", WARNING, lines, "move it away: training writes a log of that name")
    if logged and steps and steps[-1] > max(logged):
        lines = (f"checkpoint {steps[-1]} is newer than the last step of the log, {max(logged)}",)
        cure = "it is of another run: move it away, or training goes on from there"
        yield Finding("foreign-checkpoint", ERROR, lines, cure)


def _log_lines(directory: RunDirectory) -> list[dict]:
    """Returns the lines of the log; none if it is not text."""
    try:
        return directory.lines()
    except OSError:
        return []


def _text(file: files.AnyPath) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _same_network(card: ModelCard, options: Mapping) -> Iterator[Finding]:
    described = card.config.to_json()
    differing = sorted(n for n in {*described, *options["model"]} if described.get(n) != options["model"].get(n))
    if differing:
        pairs = [f"{n}: {described.get(n)} in {MODEL_FILE}, {options['model'].get(n)} in {RUN_FILE}" for n in differing]
        yield Finding("foreign-directory", ERROR, ("two descriptions differ", *pairs), "train in a folder of its own")


def _newest(directory: RunDirectory, config: ModelConfig) -> Iterator[Finding]:
    """Yields a finding if the newest checkpoint does not fit the network that the folder describes."""
    prefix = directory.latest()
    if prefix is None:
        return
    wanted = {name: tuple(v.shape) for name, v in variable_map(build_model(config, zeros=True)).items()}
    try:
        with open_source(prefix) as source:
            wrong = [name for name, shape in wanted.items() if source.shapes.get(name) != shape]
            first = wrong and f"{wrong[0]} is {source.shapes.get(wrong[0], 'not there')}, expected {wanted[wrong[0]]}"
    except DeepLabError as error:
        yield Finding("foreign-checkpoint", ERROR, (str(error),), "delete it: training goes on from the one before")
        return
    if wrong:
        lines = (f"{prefix.name} is of another network: {len(wrong)} variables do not fit ({first})",)
        yield Finding("foreign-checkpoint", ERROR, lines, "move it away, or train in another folder")


# ---- options and log


def _log(directory: RunDirectory, config: ModelConfig) -> Iterator[Finding]:
    losses = [line["cross_entropy"] for line in _log_lines(directory) if isinstance(line.get("cross_entropy"), float)]
    if any(not math.isfinite(loss) for loss in losses):
        cure = "a lower --base_learning_rate, a slow start, labels in range"
        yield Finding("loss-not-finite", ERROR, ("the log has a loss that is not finite",), cure)
        return
    if len(losses) < 8:
        return
    last = float(np.mean(losses[-(len(losses) // 4) :]))
    guess = math.log(config.num_classes)
    if last > _STUCK * guess:
        lines = (f"the loss stands at {last:.2f}, that of guessing {config.num_classes} classes is {guess:.2f}",)
        cure = "is the data sound (--dataset_dir)? are the initial weights, the learning rate those of a recipe?"
        yield Finding("loss-stuck", WARNING, lines, cure)


def _unfinished(directory: RunDirectory, options: Mapping) -> Iterator[Finding]:
    """Yields a finding if a run that is not at work has done fewer steps than its options ask for."""
    wanted = options.get("training_number_of_steps")
    logged = [line["step"] for line in _log_lines(directory)]
    reached = max([*logged, *directory.steps()], default=0)
    if not isinstance(wanted, int) or reached >= wanted or directory.in_use or not (logged or directory.steps()):
        return
    lines = (f"it stands at step {reached:,} of {wanted:,}, and no trainer is at work here",)
    if options.get("early_stop_patience"):
        lines = (*lines, "--early_stop_patience may have ended it")
        yield Finding("unfinished", NOTE, lines)
        return
    cure = "give its command again: it goes on from the newest checkpoint, as if it had never stopped"
    yield Finding("unfinished", WARNING, lines, cure)


def _different(options: Mapping, config: ModelConfig, recipe: Experiment) -> list[str]:
    """Returns one line for each option that differs from a recipe, those of the network first."""
    recommended = options_of(recipe)
    fields = [field.name for field in dataclasses.fields(ModelConfig) if field.name not in _FOLLOWING]
    here = {**{name: getattr(config, name) for name in fields}, **options}
    there = {**{name: getattr(recipe.model, name) for name in fields}, **recommended}
    names = [*fields, *(name for name in options if name in recommended)]
    differing = [n for n in dict.fromkeys(names) if n not in _FOLLOWING and here[n] != there[n]]
    differing += ["crop_size"] if here.get("crop_size") != there["crop_size"] else []
    return [f"{name}: {_shown(here[name])} here, {_shown(there[name])} in the recipe" for name in differing]


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else "unset" if value is None else str(value)


def _deviations(options: Mapping, config: ModelConfig, dataset: str | None, recipes: Mapping) -> Iterator[Finding]:
    single = len(recipes) == 1
    alike = {
        name: _different(options, config, recipe)
        for name, recipe in recipes.items()
        if single
        or (recipe.model.model_variant, recipe.data.dataset or DEFAULT_DATASET) == (config.model_variant, dataset)
    }
    if not alike:
        lines = (f"no recipe trains {config.model_variant} on {dataset}; --config names one to compare with",)
        yield Finding("no-recipe", NOTE, lines)
        return
    name = min(alike, key=lambda known: len(alike[known]))
    lines = alike[name]
    recipe = recipes[name]
    if single and recipe.model.model_variant != config.model_variant:
        lines = [f"model_variant: {config.model_variant} here, {recipe.model.model_variant} in the recipe", *lines]
    if not lines:
        yield Finding("recipe", NOTE, (f"all options are those of the recipe {name}",))
        return
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    first = f"{len(lines)} options differ from the recipe {name}"
    yield Finding("recipe-deviation", WARNING if single else NOTE, (first, *lines[:_SHOWN], *more))
