"""Several steps a call: equal to single ones in weights, slots and log, whatever falls due in between."""

import numpy as np
import pytest
import tensorflow as tf
from record_files import write_shapes

from deeplab_tf.config import DataConfig, EvalConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.training.train import train
from deeplab_tf.weights.run_directory import RunDirectory

MODEL = ModelConfig(model_variant="tiny", aspp_convs_filters=16)
TIMES = ("images_per_second", "waiting", "seconds_left")


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("records")
    write_shapes(folder, "val", 3, (49, 41))
    return write_shapes(folder, "train", 10, (49, 41))


def run(dataset_dir, folder, *, update=None, data=None, observer=None, **options):
    update = {
        "training_number_of_steps": 12,
        "base_learning_rate": 0.01,
        "fine_tune_batch_norm": True,
        **(update or {}),
    }
    records = {"dataset": "shapes", "dataset_dir": str(dataset_dir), "crop_size": (33, 33), "batch_size": 4}
    asked = Experiment(
        MODEL,
        TrainConfig(**update),
        DataConfig(**{**records, **(data or {})}),
        RunConfig(**{"log_steps": 5, "train_logdir": str(folder), **options}),
        EvalConfig(eval_split="val", eval_crop_size=(49, 41)),
    )
    return train(asked, observer=observer)


def tensors(folder) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(RunDirectory(folder).latest()))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def log(folder) -> list[dict]:
    """Returns the lines of the log, less what is a matter of time."""
    lines = [line for line in RunDirectory(folder).lines() if "step" in line]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def assert_equal(first, second):
    a, b = tensors(first), tensors(second)
    assert set(a) == set(b)
    assert [name for name in a if a[name].tobytes() != b[name].tobytes()] == []
    assert log(first) == log(second)


@pytest.mark.parametrize("update", [{}, {"gradient_accumulation_steps": 2}])
def test_loops_are_single_steps(dataset_dir, tmp_path, update):
    run(dataset_dir, tmp_path / "single", update=update, steps_per_loop=1)
    run(dataset_dir, tmp_path / "loops", update=update, steps_per_loop=10)
    assert [line["step"] for line in log(tmp_path / "loops")] == [5, 10, 12]
    assert_equal(tmp_path / "single", tmp_path / "loops")
