"""The memory that training has, and what a step takes of it."""

import math
import os
import pathlib
import subprocess

import tensorflow as tf

from deeplab_tf.config import ModelConfig
from deeplab_tf.config.run import RunConfig
from deeplab_tf.network.build import build_model
from deeplab_tf.network.cost import activation_values, model_cost
from deeplab_tf.weights.loading import open_model

_GIB = 2**30
_ASSUMED = 8 * _GIB  # of a GPU that does not say
_SHARE_OF_HOST = 0.6  # the rest is for the pictures that are read ahead, and for other programs
_SHARE_OF_GPU = 0.8
_SHARE_OF_WHOLE = 0.9  # where an update is tried and not estimated: the rest is for the pictures read ahead, and scores
# Each output is kept for the gradient, and the gradient itself is as large for a while; so is the padding's.
_COPIES = 2.5
_COPIES_OF_LOGITS = 4  # logits, their softmax, and the gradients of both, at the size of the labels
_COPIES_OF_WEIGHTS = 4  # weights, gradients, slots, averages
_OUTPUTS_AT_ONCE = 3  # that a network which only predicts holds: what a layer reads, what it gives, its padding
_FLOAT = 4


def gpus_used(run: RunConfig) -> int:
    """Returns how many GPUs a run trains on; 0: on the CPU. Does not start them."""
    if run.clone_on_cpu:
        return 0
    present = len(tf.config.list_physical_devices("GPU"))
    if run.strategy == "one_device":
        return min(present, 1)
    return min(present, run.num_clones) if run.num_clones > 1 else present


def memory_at_hand(gpus: int) -> tuple[int, str]:
    """Returns the bytes that a device's part of a batch may take, and whose memory they are.

    Args:
      gpus: the number that the run trains on; 0: the CPU.
    """
    if gpus:
        free = _free_of_gpus()
        text = f"{_shown(free)} free on the GPU" if free else f"{_shown(_ASSUMED)} assumed of the GPU"
        return int((free or _ASSUMED) * _SHARE_OF_GPU), text
    free = _free_of_host()
    return int(free * _SHARE_OF_HOST), f"{_shown(free)} free on this machine"


def most_of_gpu() -> tuple[float, str]:
    """Returns the bytes of a GPU that an update may take where it is tried, and whose they are.

    TensorFlow itself may have taken what is no longer free. Where the driver does not say, they are infinite: then the
    update that fails tells.
    """
    whole = _of_gpus("memory.total")
    return (whole * _SHARE_OF_WHOLE, f"{_shown(whole)} of the GPU") if whole else (math.inf, "the GPU")


def _shown(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"


def _free_of_gpus() -> int:
    """Returns the free bytes of the GPU that has the least; 0 where the driver does not say."""
    return _of_gpus("memory.free")


def _of_gpus(what: str) -> int:
    """Returns the bytes that the driver says of a GPU, the least of all; 0 where it does not say."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        return min(int(line) for line in answer.split("\n") if line.strip()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def _free_of_host() -> int:
    """Returns the bytes that this process may still take: of the machine, or of its container where that is less."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else _ASSUMED
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit = "".join(_lines("/sys/fs/cgroup/memory.max")).strip()
    used = "".join(_lines("/sys/fs/cgroup/memory.current")).strip()
    if limit.isdigit() and used.isdigit():
        free = min(free, max(0, int(limit) - int(used)))
    return free


def _lines(path: str) -> list[str]:
    try:
        return pathlib.Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []


def step_memory(config: ModelConfig, teacher: str | None = None) -> tuple[int, int]:
    """Returns the bytes that an update takes for the weights, and for each image of `config.crop_size`, estimated.

    Args:
      config: of the network that learns.
      teacher: the checkpoint of the network that it learns from, which predicts the same images.

    Raises:
      DeepLabError: there is no such teacher.
    """
    model = build_model(config, all_scales=len(config.image_pyramid or ()) > 1)
    weights = model_cost(model).parameters * _COPIES_OF_WEIGHTS
    values = sum(activation_values(model)) * _COPIES
    values += math.prod(config.crop_size or (1, 1)) * config.num_classes * _COPIES_OF_LOGITS
    if teacher:
        model = open_model(teacher, {"crop_size": config.crop_size}).model
        weights += model_cost(model).parameters
        values += max(activation_values(model)) * _OUTPUTS_AT_ONCE
    return weights * _FLOAT, int(values * _FLOAT)
