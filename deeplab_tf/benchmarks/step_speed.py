"""The measurement of `benchmark --what=train_step --networks=...`: networks' training steps on one device.

Each network and precision runs in a process of its own, one after the other, so that none has the memory of another,
and one that fails is told in its row. Where torch and torchvision are installed, torchvision's DeepLab-v3 on the same
ResNet follows, eager and by torch.compile.
"""

import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import tensorflow as tf

from deeplab_tf.benchmarks import torch_step
from deeplab_tf.benchmarks.networks import named_network
from deeplab_tf.benchmarks.peaks import StepPrecision, share_of_peak
from deeplab_tf.benchmarks.step_timing import StepSpec
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.network.precision import CAPABLE, bfloat16_of, compute_capability, device_name

DEVICES = ("auto", "cpu", "gpu")
AUTO = "auto"
PRECISIONS: tuple[str, ...] = (AUTO, *get_args(StepPrecision))
_PASSES = 3  # forward, and twice as much for the gradients of maps and kernels
_OURS, _TORCH = "tensorflow_step", "torch_step"
_LONGEST = 300  # letters of an error


@dataclasses.dataclass(frozen=True)
class StepBenchmark:
    """The steps to measure.

    Attributes:
      networks: names of `networks.network_names`.
      precisions: some of PRECISIONS.
      device: one of DEVICES.
      batch: images of a step.
      crop: their height and width.
      rounds: turns that are timed.
    """

    networks: tuple[str, ...]
    precisions: tuple[str, ...] = (AUTO,)
    device: str = AUTO
    batch: int = 16
    crop: tuple[int, int] = (513, 513)
    rounds: int = 9

    def __post_init__(self) -> None:
        for name in self.networks:
            named_network(name)
        for name in self.precisions:
            if name not in PRECISIONS:
                raise unknown_name("value of precision", name, PRECISIONS)
        if self.device not in DEVICES:
            raise unknown_name("device", self.device, DEVICES)


def _device(device: str) -> tuple[str, list[Any]]:
    """Returns the device to measure, cpu or gpu, and its first GPU, if it is that; does not start it.

    Raises:
      DeepLabError: TensorFlow sees no GPU.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise DeepLabError("--device=gpu: TensorFlow sees no GPU; see `nvidia-smi`, or choose --device=cpu")
    return ("gpu", gpus[:1]) if gpus and device != "cpu" else ("cpu", [])


def _precisions(wanted: Sequence[str], gpus: list[Any]) -> list[StepPrecision]:
    """Returns what to compute in: auto is what `train --mixed_precision=auto` takes on the device.

    Raises:
      DeepLabError: tf32 is asked for of a device that does not round float32.
    """
    found: list[StepPrecision] = []
    has_tf32 = bool(gpus) and (compute_capability(gpus[0]) or (0, 0)) >= CAPABLE
    for name in wanted:
        if name == "tf32" and not has_tf32:
            where = device_name(gpus[0]) if gpus else "the CPU"
            raise DeepLabError(f"--precision=tf32: {where} does not round float32; expected float32, or another device")
        if name == AUTO:
            name = "bfloat16" if bfloat16_of("GPU" if gpus else "CPU", gpus)[0] else "float32"
        for known in get_args(StepPrecision):
            if known == name and known not in found:
                found.append(known)
    return found


def _run(program: str, spec: StepSpec) -> dict[str, Any]:
    """Returns what a module of this package measures in a process of its own; {"error": why} where that fails."""
    code = f"import sys; from deeplab_tf.benchmarks import {program}; {program}.main(sys.argv[1])"
    environment = {**os.environ, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    if spec.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    command = [sys.executable, "-c", code, spec.to_json()]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1])
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        cause = "; the system ends what takes too much memory" if name == "SIGKILL" else ""
        return {"error": f"its process was ended by {name}{cause}"}
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return {"error": f"its process ended with status {done.returncode}: {said[-1] if said else 'no word'}"[:_LONGEST]}


def _figures(spec: StepSpec, found: dict[str, Any]) -> dict[str, Any]:
    """Returns the row of a measurement."""
    row: dict[str, Any] = {
        "network": spec.network,
        "precision": spec.precision,
        "size": spec.crop,
        "batch": spec.batch,
        "on": spec.device,
    }
    if "error" in found:
        return {**row, **found}
    middle = statistics.median(found["step_s"])
    low, _, high = statistics.quantiles(found["step_s"] * 2, n=4, method="inclusive")
    operations = 2 * _PASSES * found["multiply_adds"] * spec.batch / middle
    share, why = share_of_peak(found["device"], spec.precision, operations)
    return {
        **row,
        "by": found["by"],
        "device": found["device"],
        "gmac": found["multiply_adds"] / 1e9,
        "images_per_s": spec.batch / middle,
        "step_ms": 1000 * middle,
        "step_ms_middle_half": [1000 * low, 1000 * high],
        "first_step_s": found["first_step_s"],
        "tflops": operations / 1e12,
        "share_of_peak": share,
        "no_share": why,
        "peak_mb": found["peak_mb"],
        "warm_peak_mb": found["warm_peak_mb"],
    }


def _specs(plan: StepBenchmark) -> Iterator[tuple[str, StepSpec]]:
    """Yields the measurements, each with the module that does it."""
    device, gpus = _device(plan.device)
    for precision in _precisions(plan.precisions, gpus):
        for name in plan.networks:
            spec = StepSpec(name, precision, device, plan.batch, plan.crop, plan.rounds)
            yield _OURS, spec
            if named_network(name).counterpart and not torch_step.missing():
                yield _TORCH, spec
                yield _TORCH, dataclasses.replace(spec, compiled=True)


def measure(plan: StepBenchmark, *, announce: Callable[[str], None]) -> list[dict[str, Any]]:
    """Returns a row for each network and precision, and after it one for each way of PyTorch.

    A row has "network", "precision", "size", "batch", "on" (cpu or gpu), and either "error" or: "by" (the library),
    "device" (the card's name, or None), "gmac" (10^9 multiply-adds of the convolutions for an image, forward),
    "images_per_s", "step_ms", "step_ms_middle_half", "first_step_s" (with all that is compiled), "tflops" (two
    operations a multiply-add, three passes), "share_of_peak" or None with the reason in "no_share", "peak_mb" and
    "warm_peak_mb" (without the first step): of the GPU what the library took, of a CPU the resident memory of the
    process. PyTorch's have "program" torch_step, the project's tensorflow_step.

    announce: called with a line before each measurement.

    Raises:
      DeepLabError: there is no such device, or it has no such precision.
    """
    rows = []
    missing = torch_step.missing()
    if missing and any(named_network(name).counterpart for name in plan.networks):
        announce(
            f"No {' and '.join(missing)} here: with torch and torchvision in this environment PyTorch's step of the "
            "ResNets is measured beside ours"
        )
    for program, spec in list(_specs(plan)):
        how = {_OURS: ""}.get(program, ", PyTorch" + (" compiled" if spec.compiled else ""))
        announce(f"{spec.network}, {spec.precision}{how}: {spec.rounds} rounds")
        rows.append({**_figures(spec, _run(program, spec)), "program": program, "compiled": spec.compiled})
    return rows
