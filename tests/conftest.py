"""Shared by the tests: quiet TensorFlow, the golden figures, the folder of real weights and images."""

import ctypes
import gc
import importlib.util
import json
import os
import pathlib
import sys
import types

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What XLA compiles here runs for a few steps, so optimising the machine code costs more than it saves.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# Tracing a graph makes so many objects that Python's collector would walk through all of TensorFlow's again and again,
# a tenth to a fifth of the time.
gc.set_threshold(50_000, 20, 20)

ROOT = pathlib.Path(__file__).parents[1]
GOLDENS = pathlib.Path(__file__).parent / "goldens"
SHARED = ROOT.parent / "shared"


# The head of the released MobileNetV3 checkpoints.
V3_HEAD = {
    "num_classes": 19,
    "output_stride": 32,
    "aspp_convs_filters": 128,
    "aspp_with_concat_projection": False,
    "aspp_with_squeeze_and_excitation": True,
    "decoder_output_stride": (8,),
    "decoder_use_sum_merge": True,
    "decoder_filters": 19,
    "decoder_output_is_logits": True,
    "image_se_uses_qsigmoid": True,
}


def _golden_module(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, GOLDENS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_golden_module("golden")
_golden_module("golden_torch")


def _resident() -> int:
    """The memory of this process in bytes; 0 where the system does not tell."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


_GROWTH = 2**29
_seen = [2**30]


@pytest.fixture(autouse=True)
def _memory_is_given_back():
    """Where a test has left much, what TensorFlow keeps of eager operations goes: their kernels, with their weights.

    Two processes of six gigabytes each would be too many for a small machine.
    """
    yield
    if _resident() > _seen[0] + _GROWTH:
        from tensorflow.python.eager import context

        gc.collect()
        context.context().clear_kernel_cache()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        _seen[0] = _resident()


@pytest.fixture(autouse=True)
def _determinism_ends():
    """A deterministic run leaves TensorFlow's switch on, under which XLA refuses the gradient of a max pooling."""
    yield
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework import config

        if config.is_op_determinism_enabled():
            config.disable_op_determinism()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Tests neither see nor change what is kept for the user."""
    before = os.environ.get("DEEPLAB_TF_CACHE")
    os.environ["DEEPLAB_TF_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["DEEPLAB_TF_CACHE"]
    else:
        os.environ["DEEPLAB_TF_CACHE"] = before


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder with real weights and images; tests that need it skip only where it does not exist."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared with real weights and images")
    return SHARED


@pytest.fixture
def my_data(tmp_path, monkeypatch) -> pathlib.Path:
    """A folder of one's own data in the working directory, yet to be made."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my_data"


def golden_cases() -> list[str]:
    """The names of the golden model cases."""
    return sorted(path.stem for path in (GOLDENS / "models").glob("*.npz"))


def read_case(case: str) -> tuple[dict, dict[str, np.ndarray]]:
    """A golden case: its description and its arrays."""
    values = json.loads((GOLDENS / "models" / f"{case}.json").read_text())
    with np.load(GOLDENS / "models" / f"{case}.npz") as arrays:
        return values, dict(arrays)


def case_config(values: dict, **changes):
    """The ModelConfig of a golden case."""
    from deeplab_tf.config import ModelConfig

    flags = {**values["flags"], **{k: values[k] for k in ("atrous_rates", "output_stride", "num_classes")}}
    if "dense_prediction_cell_json" in flags:
        flags["dense_prediction_cell_json"] = str(GOLDENS / "models" / flags["dense_prediction_cell_json"])
    return ModelConfig(**{**flags, "crop_size": (values["height"], values["width"]), **changes})


def fill(model) -> None:
    """Gives every variable of `model` its golden value."""
    from golden import golden_tensor

    from deeplab_tf.weights.tf1 import variable_map

    for name, variable in variable_map(model).items():
        variable.assign(golden_tensor(name, tuple(variable.shape)))
