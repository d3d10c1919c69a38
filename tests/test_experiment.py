"""An experiment says each fact once: what follows from another part is set, and stays so when a part is replaced."""

import dataclasses
import subprocess
import sys

import pytest

import deeplab_tf
from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.config import DERIVED, DataConfig, EvalConfig, Experiment, ModelConfig, RunConfig, TrainConfig


def test_what_follows_from_other_parts():
    experiment = Experiment(
        ModelConfig(model_variant="resnet_v1_50", num_classes=3, crop_size=(9, 9)),
        TrainConfig(ignore_label=7),
        DataConfig(dataset="ade20k", crop_size=(65, 97), model_variant="vgg16"),
    )
    assert (experiment.model.num_classes, experiment.train.ignore_label) == (151, 0)
    assert experiment.model.crop_size == (65, 97) and experiment.data.model_variant == "resnet_v1_50"
    model = ModelConfig(model_variant="xception_65")
    changed = dataclasses.replace(experiment, model=model, data=DataConfig(dataset="cityscapes"))
    assert (changed.model.num_classes, changed.train.ignore_label) == (19, 255)
    assert changed.model.crop_size == (513, 513) and changed.data.model_variant == "xception_65"
    assert dataclasses.replace(changed) == changed


def test_a_data_set_of_ones_own():
    experiment = Experiment(ModelConfig(num_classes=5), TrainConfig(ignore_label=9), DataConfig(dataset="own/folder"))
    assert (experiment.model.num_classes, experiment.train.ignore_label) == (5, 9)
    facts = dataclasses.replace(DATASETS["shapes"], name="own/folder", ignore_label=254)
    found = experiment.on(facts)
    assert (found.model.num_classes, found.train.ignore_label) == (9, 254)
    assert found.on(facts) == found


@pytest.mark.parametrize(
    ("mode", "logdir", "expected"),
    [
        ("train", None, ("run", "run/eval", 7)),
        ("eval", None, ("run", "run/eval", 1)),
        ("continuous_eval", "scores", ("run", "scores", 7)),
    ],
)
def test_a_run_is_scored_where_it_is(mode, logdir, expected):
    evaluation = EvalConfig(eval_logdir=logdir, max_number_of_evaluations=7)
    found = Experiment(run=RunConfig(train_logdir="run", mode=mode), evaluation=evaluation).evaluation_of_run
    assert (found.checkpoint_dir, found.eval_logdir, found.max_number_of_evaluations) == expected
    assert Experiment().evaluation_of_run == EvalConfig()


def test_derived_fields_are_fields():
    parts = [field.type for field in dataclasses.fields(Experiment)]
    assert list(DERIVED) == parts
    for part, names in DERIVED.items():
        assert {field.name for field in dataclasses.fields(part)} >= set(names)


def test_it_is_public_and_needs_no_tensorflow():
    assert deeplab_tf.Experiment is Experiment
    code = "import sys, deeplab_tf; deeplab_tf.Experiment(); print('tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
