"""The training step: every golden run of the original, and what the original cannot show."""

import json

import numpy as np
import pytest
from conftest import GOLDENS, case_config, fill
from golden import golden_image, golden_label

from deeplab_tf.checkpoint import variable_map
from deeplab_tf.config import TrainConfig
from deeplab_tf.cost import regularized_kernels
from deeplab_tf.model import build_model
from deeplab_tf.train import make_train_step

# What the figures of a golden run call the options.
_OPTIONS = (
    *("optimizer", "momentum", "base_learning_rate", "learning_power", "training_number_of_steps", "slow_start_step"),
    *("slow_start_learning_rate", "weight_decay", "fine_tune_batch_norm", "last_layer_gradient_multiplier"),
    *("last_layers_contain_logits_only", "top_k_percent_pixels", "hard_example_mining_step", "label_weights"),
    "ignore_label",
)
_HEAVY = ("xception", "resnet")
_CASES = [
    pytest.param(path.stem, marks=[pytest.mark.heavy] if any(h in path.stem for h in _HEAVY) else [])
    for path in sorted((GOLDENS / "train").glob("*.json"))
]


def golden_batch(case: dict) -> tuple[np.ndarray, np.ndarray]:
    keys = [f"{case['name']}/{b}" for b in range(case["batch"])]
    size = (case["height"], case["width"])
    images = np.stack([golden_image(key, *size) for key in keys]).astype(np.float32)
    return images, np.stack([golden_label(key, *size, case["num_classes"]) for key in keys])


def snapshot(model) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in variable_map(model).items()}


def norms(values: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.linalg.norm(value.astype(np.float64))) for name, value in values.items()}


def changes(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, float]:
    return norms({name: after[name] - before[name] for name in before})


def run_golden(case: dict):
    """Returns the history (one entry more than steps), and the changes of the variables after the first and last step."""
    model = build_model(case_config(case))
    fill(model)
    step = make_train_step(model, TrainConfig(dropout=False, **{name: case[name] for name in _OPTIONS}))
    images, labels = golden_batch(case)
    before, history, after = snapshot(model), [], []
    for _ in range(case["steps"]):
        history.append({name: value.numpy() for name, value in step(images, labels).items()})
        after.append(changes(before, snapshot(model)))
    history.append({name: value.numpy() for name, value in step(images, labels).items()})
    assert len(regularized_kernels(model)) == case["regularized"]
    return history, after[0], after[-1], norms(before)
