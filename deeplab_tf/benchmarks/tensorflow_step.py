"""The project's training step in a process of its own, for `step_speed`: synthetic batches that lie on the device."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab_tf.benchmarks import memory
from deeplab_tf.benchmarks.networks import named_network
from deeplab_tf.benchmarks.step_timing import StepSpec, answer, time_steps
from deeplab_tf.network.build import build_model
from deeplab_tf.network.cost import model_cost
from deeplab_tf.network.precision import device_name
from deeplab_tf.training.step import make_train_step

_GPU = "GPU:0"


def _peak(device: str) -> float:
    """Returns the most memory in MB since the last `_reset`: of the GPU that TensorFlow took, or of this process."""
    if device == "gpu":
        return tf.config.experimental.get_memory_info(_GPU)["peak"] / 1e6
    return memory.resident("VmHWM")


def _reset(device: str) -> None:
    if device == "gpu":
        tf.config.experimental.reset_memory_stats(_GPU)
    else:
        memory.reset_peak()


def measure(spec: StepSpec) -> dict[str, Any]:
    """Returns the figures of a step: see `step_speed.measure`; the process must not have done anything else before."""
    network = named_network(spec.network)
    # The switch is TensorFlow's for the whole process, which is this step's alone.
    tf.config.experimental.enable_tensor_float_32_execution(spec.precision != "float32")
    precision = "none" if spec.precision in ("float32", "tf32") else spec.precision
    config = dataclasses.replace(network.model, crop_size=spec.crop)
    model = build_model(config, all_scales=len(config.image_pyramid or ()) > 1)
    step = make_train_step(model, dataclasses.replace(network.train, mixed_precision=precision, jit_compile="auto"))
    random = np.random.default_rng(0)
    shape = (spec.batch, *spec.crop)
    images = tf.constant(random.uniform(0, 255, (*shape, config.input_channels)).astype(np.float32))
    labels = tf.constant(random.integers(0, config.num_classes, shape).astype(np.int32))
    peaks: list[float] = []

    def began() -> None:
        peaks.append(_peak(spec.device))
        _reset(spec.device)

    times = time_steps(lambda: step(images, labels)["total_loss"], spec.rounds, began=began)
    warm = _peak(spec.device)
    gpus = tf.config.list_physical_devices("GPU")
    return {
        **times,
        "device": device_name(gpus[0]) if spec.device == "gpu" else None,
        "multiply_adds": model_cost(model).multiply_adds,
        "peak_mb": max(*peaks, warm),
        "warm_peak_mb": warm,
        "by": f"TensorFlow {tf.__version__}, XLA" if step.compiled_by_xla else f"TensorFlow {tf.__version__}",
    }


def main(text: str) -> None:
    """Measures the StepSpec in `text`, and prints the figures."""
    answer(measure, text)
