"""The recipes: facts without TensorFlow, networks of published rows, commands that say what they configure."""

import dataclasses
import importlib
import pathlib
import re
import shlex
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from absl import flags
from conftest import ROOT

from deeplab_tf import configs
from deeplab_tf.config import DataConfig, EvalConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.data.shapes import shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network import graph
from deeplab_tf.network.build import build_model
from deeplab_tf.tools import extend, options, train
from deeplab_tf.training.step import make_train_step
from deeplab_tf.zoo.lookup import CHECKPOINTS
from deeplab_tf.zoo.published import LINEAGE, RESULTS

NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")
PARTS = {"model": ModelConfig, "train": TrainConfig, "data": DataConfig, "run": RunConfig, "evaluation": EvalConfig}
# Fields that say where things are: a command gives them, a recipe need not.
PLACES = ("train_logdir", "dataset_dir", "tf_initial_checkpoint", "teacher", "unlabelled_dir")
# What may rightly differ between a recipe and the published row: how the row was evaluated.
EVALUATION = ("output_stride", "atrous_rates", "image_pyramid", "crop_size")


def recipe(name: str):
    return importlib.import_module(f"deeplab_tf.configs.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_an_experiment(name):
    assert name in configs.names()
    experiment = configs.read(name)
    assert experiment is recipe(name).EXPERIMENT
    for part, kind in PARTS.items():
        assert type(getattr(experiment, part)) is kind
    assert experiment.data.model_variant == experiment.model.model_variant
    assert experiment.data.crop_size and experiment.model.crop_size == experiment.data.crop_size
    start = experiment.run.tf_initial_checkpoint
    assert start is None or start in CHECKPOINTS
    lines = pathlib.Path(recipe(name).__file__).read_text(encoding="utf-8").splitlines()
    assert 18 <= len(lines) <= 50 and max(map(len, lines)) <= 120


def test_a_fact_is_written_once():
    """What a recipe says of the backbone, the crop and the data set holds for all parts."""
    for name in NAMES:
        text = pathlib.Path(recipe(name).__file__).read_text(encoding="utf-8")
        for field in ("model_variant", "crop_size", "num_classes", "ignore_label"):
            assert len(re.findall(rf"\b{field}=", text)) <= 1, (name, field)
        assert not re.search(r"\b(num_classes|ignore_label)=", text), name


def published_rows(text: str) -> dict[str, float]:
    """Returns name -> score of the rows that a docstring calls published."""
    return {name: float(score) for name, score in re.findall(r"([a-z0-9-]+/[a-z0-9]+/[a-z0-9.-]+) ([\d.]+) %", text)}


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_tells_command_hardware_and_published_scores(name):
    text = recipe(name).__doc__
    assert "\nHardware: " in text and "\nPublished: " in text
    (line,) = [line for line in text.splitlines() if line.startswith("Published: ")]
    rows = published_rows(text)
    assert rows or "none" in line
    assert rows == {row: RESULTS[row].score for row in rows}
    if line.startswith("Published: none"):
        return
    theirs = RESULTS[next(iter(published_rows(line)))].config
    if not name.startswith("seed_"):  # what the seed trains is its own
        same = {field: getattr(theirs, field) for field in EVALUATION}
        assert dataclasses.replace(configs.read(name).model, **same) == theirs


def command(module) -> list[str]:
    """Returns the arguments of the command in a recipe's docstring, beginning with its name."""
    text = module.__doc__.replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith(("  deeplab-tf train ", "  deeplab-tf extend "))]
    return shlex.split(line)[1:]


@pytest.mark.parametrize("name", NAMES)
def test_the_command_says_what_the_recipe_configures(name):
    experiment, (tool, *arguments) = configs.read(name), command(recipe(name))
    assert arguments[0] == f"--config={name}"
    values = flags.FlagValues()
    {"train": train, "extend": extend}[tool].define(values)
    values([tool, *(a for a in arguments if not a.startswith("--config="))])
    given = {}
    for part, kind in PARTS.items():
        given |= {(part, field): value for field, value in options.given(values, kind, train._NAMES[kind]).items()}
    places = {field: value for (_, field), value in given.items() if field in PLACES}
    for (part, field), value in given.items():
        configured = getattr(getattr(experiment, part), field)
        if field in PLACES:
            assert configured in (None, value), field
        else:
            assert configured == getattr(PARTS[part](**{field: value}), field), field
    assert {"train_logdir", "dataset_dir"} <= places.keys()
    started = experiment.run.tf_initial_checkpoint or places.get("tf_initial_checkpoint")
    assert started or tool == "extend" or "from scratch" in recipe(name).__doc__


def configured(*arguments: str) -> Experiment:
    values = flags.FlagValues()
    train.define(values)
    values(["train", *arguments])
    return train.experiment(values)


def test_a_run_starts_from_a_recipe_and_its_flags_change_it():
    start = configs.read("v3plus_xception65")
    arguments = ("--config=v3plus_xception65", "--train_logdir=exp", "--train_batch_size=8", "--output_stride=8")
    found = configured(*arguments)
    assert found.run == dataclasses.replace(start.run, train_logdir="exp") and found.train == start.train
    assert found.model == dataclasses.replace(start.model, output_stride=8)
    assert found.data == dataclasses.replace(start.data, batch_size=8)
    scored = found.evaluation_of_run
    assert (scored.checkpoint_dir, scored.eval_logdir) == ("exp", "exp/eval")
    found = configured("--model_variant=xception_41")
    assert found.data.model_variant == "xception_41", "padding follows the network"


def test_a_recipe_that_is_none():
    with pytest.raises(DeepLabError, match="unknown config 'v3plus_xception'; did you mean .*v3plus_xception65"):
        configured("--config=v3plus_xception")


def test_a_recipe_of_the_older_form_is_told_the_new_one(monkeypatch):
    old = types.SimpleNamespace(MODEL=ModelConfig(), __file__="configs/own.py")
    monkeypatch.setattr(configs, "names", lambda: ["own"])
    monkeypatch.setitem(sys.modules, "deeplab_tf.configs.own", old)
    with pytest.raises(DeepLabError, match="--config=own: configs/own.py has no EXPERIMENT; expected EXPERIMENT = "):
        configured("--config=own")


LARGE = ("resnet", "xception")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.heavy] * any(size in n for size in LARGE)) for n in NAMES]
)
def test_a_recipe_builds(name, monkeypatch):
    monkeypatch.setattr(graph, "initializer", lambda kind: "zeros")
    config = configs.read(name).model
    several = len(config.image_pyramid or ()) > 1
    model = build_model(config, all_scales=several)
    assert model.input_shape == (None, *configs.read(name).data.crop_size, 3)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["v1_shapes", "v2_shapes"])
def test_the_small_recipes_learn(name):
    # Two pictures by heart, in a few steps: far below what the frequencies of the classes alone would give.
    experiment, size = configs.read(name), (49, 49)
    examples = [shapes_example(0, index, height=49, width=49) for index in range(2)]
    images, labels = (np.stack(arrays) for arrays in zip(*examples, strict=True))
    keras.utils.set_random_seed(0)
    scales = experiment.model.image_pyramid
    losses = 1 + len(scales) if scales else 1
    model = build_model(dataclasses.replace(experiment.model, crop_size=size), all_scales=losses > 1)
    step = make_train_step(model, experiment.train)
    for _ in range(40):
        loss = float(step(images.astype(np.float32), labels.astype(np.int32))["cross_entropy"]) / losses
    shares = np.bincount(labels[labels < 255]) / np.sum(labels < 255)
    assert loss < 0.6 * -np.sum(shares[shares > 0] * np.log(shares[shares > 0]))


def test_the_lineage_leads_to_recipes():
    for name, config in LINEAGE.values():
        assert name in recipe(config).__doc__
        assert RESULTS[name].config.model_variant == configs.read(config).model.model_variant


def test_recipes_do_not_import_tensorflow():
    modules = ["deeplab_tf.zoo.published", *(f"deeplab_tf.configs.{name}" for name in NAMES)]
    code = f"import sys, {', '.join(modules)}; print(*{{'tensorflow', 'keras', 'absl'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr
