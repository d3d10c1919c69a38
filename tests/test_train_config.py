"""TrainConfig: the release's names and defaults, and errors that name field, value and cure."""

import dataclasses
import subprocess
import sys

import pytest

from deeplab_tf.config import TrainConfig
from deeplab_tf.errors import DeepLabError

# The train flags of the release (train.py) about losses, schedule and update.
RELEASE_DEFAULTS = {
    "optimizer": "momentum",
    "learning_policy": "poly",
    "base_learning_rate": 0.0001,
    "decay_steps": 0.0,
    "end_learning_rate": 0.0,
    "learning_rate_decay_factor": 0.1,
    "learning_rate_decay_step": 2000,
    "learning_power": 0.9,
    "training_number_of_steps": 30000,
    "momentum": 0.9,
    "adam_learning_rate": 0.001,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.00004,
    "upsample_logits": True,
    "last_layer_gradient_multiplier": 1.0,
    "last_layers_contain_logits_only": False,
    "drop_path_keep_prob": 1.0,
    "slow_start_step": 0,
    "slow_start_learning_rate": 1e-4,
    "fine_tune_batch_norm": True,
    "hard_example_mining_step": 0,
    "top_k_percent_pixels": 1.0,
    "label_weights": None,
}
# What the release has no flag for; the defaults are what it does.
ADDITIONS = {
    "old_classes": 0,
    "background_class": 0,
    "distillation_weight": 1.0,
    "teacher_confidence": 0.8,
    "slow_start_burnin_type": "none",
    "freeze_batch_norm": False,
    "freeze": "none",
    "freeze_steps": 0,
    "sync_batch_norm": False,
    "loss": "cross_entropy",
    "focal_gamma": 2.0,
    "ignore_label": 255,
    "dropout": True,
    "seed": 0,
    "gradient_accumulation_steps": 1,
    "ema_decay": 0.0,
    "mixed_precision": "none",
    "jit_compile": "auto",
}


def test_names_and_defaults():
    found = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    assert found == {**RELEASE_DEFAULTS, **ADDITIONS}
    assert all(field.metadata["help"] for field in dataclasses.fields(TrainConfig))


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().momentum = 0.5


@pytest.mark.parametrize(("given", "held"), [(True, "true"), (False, "false"), ("true", "true"), ("auto", "auto")])
def test_a_switch_may_be_a_bool(given, held):
    assert TrainConfig(jit_compile=given).jit_compile == held


@pytest.mark.parametrize("weights", [(0.1, 2.0, 1.0), [0.1, 2, 1], "0.1,2,1", ["0.1", "2,1"]])
def test_weights_in_every_spelling(weights):
    assert TrainConfig(label_weights=weights).label_weights == (0.1, 2.0, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer='sgd': expected one of momentum, adam"),
        ({"learning_policy": "exp"}, "learning_policy='exp': expected one of poly, step, cosine"),
        ({"slow_start_burnin_type": "cubic"}, "expected one of none, linear"),
        ({"loss": "hinge"}, "expected one of cross_entropy, focal, dice, lovasz"),
        ({"mixed_precision": "int8"}, "expected one of none, bfloat16, float16"),
        ({"jit_compile": "yes"}, "jit_compile='yes': expected one of auto, true, false"),
        ({"jit_compile": None}, "jit_compile=None: expected one of"),
        ({"jit_compile": 1}, "jit_compile=1: expected one of"),
        ({"base_learning_rate": -1.0}, "base_learning_rate=-1.0: expected a number of at least 0"),
        ({"base_learning_rate": float("nan")}, "base_learning_rate=nan"),
        ({"training_number_of_steps": 0}, "training_number_of_steps=0: expected a number of at least 1"),
        ({"slow_start_step": 30000}, "slow_start_step=30000: expected fewer than training_number_of_steps=30000"),
        ({"momentum": 1.0}, "momentum=1.0: expected a number from 0 to below 1"),
        ({"ema_decay": 1.5}, "ema_decay=1.5"),
        ({"top_k_percent_pixels": 0.0}, "top_k_percent_pixels=0.0: expected a share above 0 and at most 1"),
        ({"top_k_percent_pixels": 25}, "top_k_percent_pixels=25: expected a share"),
        ({"top_k_percent_pixels": 0.5, "loss": "dice"}, "top_k_percent_pixels=0.5: expected 1 with loss=dice"),
        ({"label_weights": (1.0, -1.0)}, r"label_weights=\(1.0, -1.0\): expected weights of at least 0"),
        ({"label_weights": "a,b"}, "label_weights=.*a,b.*expected float numbers"),
        ({"drop_path_keep_prob": 0.0}, "drop_path_keep_prob=0.0: expected a probability"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps=0: expected a number of at least 1"),
        ({"adam_epsilon": 0.0}, "adam_epsilon=0.0: expected a number above 0"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(DeepLabError, match=message):
        TrainConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"slow_start_step": 40000, "decay_steps": 100.0},
        {"slow_start_step": 40000, "learning_policy": "step"},
        {"top_k_percent_pixels": 0.25, "loss": "focal", "hard_example_mining_step": 100},
        {"weight_decay": 0, "base_learning_rate": 0},
    ],
    ids=str,
)
def test_what_goes_together(options):
    TrainConfig(**options)


def test_it_needs_no_tensorflow():
    code = "import sys; from deeplab_tf.config import TrainConfig; TrainConfig(); print('tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
