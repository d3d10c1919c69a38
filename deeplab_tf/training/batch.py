"""The largest batch that the memory of the devices holds, for --train_batch_size=auto, and the rate for it.

On a GPU updates of growing batches are run; on a CPU their memory is estimated as the recipe finetune does, since a
process that asks for too much of it is killed and not told.
"""

import dataclasses
import gc
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.config import DataConfig, Experiment, RunConfig
from deeplab_tf.data.examples import dataset_of, open_records
from deeplab_tf.errors import DeepLabError, is_out_of_memory
from deeplab_tf.network.build import build_model
from deeplab_tf.training import memory
from deeplab_tf.training.choices import Given, shown
from deeplab_tf.training.distribution import reserve_devices
from deeplab_tf.training.finetuning import Plan, plan
from deeplab_tf.training.precision import Hardware, settled
from deeplab_tf.training.step import make_train_step
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.run_options import read_run

# Called with the images of one device; returns the bytes that an update takes, or raises where there are too many.
Probe = Callable[[int], int]
Tell = Callable[[str], object]
_GRID = 8  # of the images of a device: matrix units work on eights
_MOST_PROBES = 8  # each may have to be compiled
_FLAG = "--train_batch_size=auto"


@dataclasses.dataclass(frozen=True)
class Room:
    """What a batch may take on one device.

    Attributes:
      size: the bytes of its memory; infinite where only the device itself knows them.
      most: the number of images.
      parts: gradient_accumulation_steps, which divides it.
    """

    size: float
    most: int
    parts: int = 1

    def floor(self, count: float) -> int:
        """Returns the largest batch up to `count` that there may be: a multiple of the parts, and from 8 on of 8."""
        count = min(count, self.most)
        grid = math.lcm(_GRID, self.parts)
        unit = grid if count >= grid else self.parts
        return int(count // unit) * unit


def largest(probe: Probe, room: Room) -> tuple[int, int]:
    """Returns the largest batch of a device that fits, (images, bytes of an update); (0, 0) where none does.

    Batches are doubled; from two on the next one is where the line through the last two says that memory ends, and one
    that does not fit after all is halved towards the largest that did.

    Args:
      probe: asked for at most eight batches; its exceptions that are a shortage of memory count, others are raised.
      room: what a batch may take.
    """
    fits, used = 0, 0
    before = (0, 0)
    beyond: int | None = None
    for _ in range(_MOST_PROBES):
        if beyond is not None:
            wanted = (fits + beyond) / 2
        elif before[0] and used > before[1] and math.isfinite(room.size):
            wanted = fits + (room.size - used) * (fits - before[0]) / (used - before[1])
        else:
            wanted = 2 * fits or max(_GRID, room.parts)
        count = room.floor(wanted)
        if count <= fits:
            break
        taken = _taken(probe, count)
        if taken is None or taken > room.size:
            beyond = count
        else:
            before, (fits, used) = (fits, used), (count, taken)
    return fits, used


def _taken(probe: Probe, count: int) -> int | None:
    """Returns the bytes that an update takes; None where the memory does not suffice."""
    try:
        return probe(count)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None


def _gpu_probe(experiment: Experiment) -> Probe:
    """Returns a probe that runs an update of a network like that of the experiment on the first GPU."""
    model = build_model(experiment.model, all_scales=len(experiment.model.image_pyramid or ()) > 1)
    path = experiment.run.teacher
    teacher = open_model(path, {"crop_size": experiment.data.crop_size}).model if path else None
    step = make_train_step(model, experiment.train, teacher=teacher)
    height, width = experiment.data.crop_size or (1, 1)

    def probe(count: int) -> int:
        gc.collect()
        tf.config.experimental.reset_memory_stats("GPU:0")
        images = np.zeros((count, height, width, experiment.model.input_channels), np.float32)
        result = step(images, np.zeros((count, height, width), np.int32))
        float(result["total_loss"])  # waits for the device
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])

    return probe


def _estimate(experiment: Experiment) -> Probe:
    """Returns a probe that estimates the memory of an update on a CPU."""
    own, each = memory.step_memory(
        dataclasses.replace(experiment.model, crop_size=experiment.data.crop_size), experiment.run.teacher
    )
    return lambda count: own + count // experiment.train.gradient_accumulation_steps * each


def _require_local(run: RunConfig) -> None:
    if "TF_CONFIG" in os.environ or run.tpu or run.strategy in ("tpu", "multi_worker"):
        raise DeepLabError(f"{_FLAG}: expected a number: the memory of other machines and of TPUs is not known here")


def _silent(line: str) -> None:
    del line


def fitting(experiment: Experiment, tell: Tell = _silent) -> tuple[int, str]:
    """Returns the largest batch over all devices, bounded by the images of the split, and a line on its memory.

    tell: gets a line where that takes a while.

    Raises:
      DeepLabError: not even one image fits a device; several machines or a TPU are to train; the data cannot be read.
    """
    run, data = experiment.run, experiment.data
    _require_local(run)
    reserve_devices(run)
    facts = dataset_of(data)
    experiment = experiment.on(facts)
    gpus = memory.gpus_used(run)
    replicas = max(gpus, 1) if gpus else max(run.num_clones, 1)
    images = open_records(data, run.train_split).count
    parts = experiment.train.gradient_accumulation_steps
    train, _ = settled(experiment.train, experiment.model, Hardware("GPU" if gpus else "CPU", 1, _gpus(gpus)))
    experiment = dataclasses.replace(experiment, train=train).on(facts)
    size, whose = memory.most_of_gpu() if gpus else memory.memory_at_hand(0)
    room = Room(size if gpus else size // replicas, max(images // replicas, parts), parts)
    if gpus:
        tell(f"{_FLAG}: updates of growing batches are tried on the GPU; each is compiled first")
    probe = _gpu_probe(experiment) if gpus else _estimate(experiment)
    count, used = largest(probe, room)
    del probe
    gc.collect()
    height, width = data.crop_size or (0, 0)
    if not count:
        raise DeepLabError(
            f"{_FLAG}: not even {parts} image{'s' * (parts > 1)} of {height} x {width} fit into {_gib(room.size)} of "
            f"{whose}; expected a smaller --train_crop_size or --model_variant"
        )
    bound = f"; there are {images} pictures" if count == room.floor(room.most) else ""
    of = " on each device" if replicas > 1 else ""
    takes = "take" if gpus else "take about"
    return count * replicas, f"{count} images of {height} x {width} {takes} {_gib(used)} of {whose}{of}{bound}"


def _gpus(count: int) -> list[Any]:
    return tf.config.list_physical_devices("GPU")[:count]


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{max(size / 2**20, 1):.0f} MiB"


def _begun(experiment: Experiment) -> Mapping[str, Any]:
    folder = experiment.run.train_logdir
    return read_run(files.path(folder)) if folder else {}


def fitted(experiment: Experiment, *, rate_given: bool, tell: Tell = _silent) -> tuple[Experiment, str]:
    """Returns an experiment with the largest batch that fits and the rate for it, and the line that says so.

    A run that goes on has the batch and rate that it began with, on any machine. The rate of momentum is linear in the
    batch (arXiv 1706.02677, section 2.1), from those of the experiment; Adam's steps do not depend on it.

    Args:
      experiment: as the user or a recipe configures it, with a batch that its rate is for.
      rate_given: whether the user gives the rate, which then stays.
      tell: gets a line where it takes a while.

    Raises:
      DeepLabError: that of `fitting`; or run.json is damaged.
    """
    folder, before = experiment.run.train_logdir, _begun(experiment)
    data, train = experiment.data, experiment.train
    if before:
        rate: Any = train.base_learning_rate if rate_given else before.get("base_learning_rate")
        batch: Any = before.get("batch_size")
        if type(batch) is not int or batch < 1 or type(rate) not in (int, float):
            raise DeepLabError(
                f"{folder}/run.json: damaged (batch_size={batch!r}, base_learning_rate={rate!r}); "
                "expected the options of a run; choose another --train_logdir"
            )
        line = f"{_FLAG}: {batch}, as the run in {folder} began with it"
        return _with(experiment, batch, float(rate)), line
    batch, line = fitting(experiment, tell)
    rate = train.base_learning_rate
    if rate_given:
        why = f"--base_learning_rate={shown(rate)} stays as given"
    elif train.optimizer == "adam" and train.adam_learning_rate:
        why = f"--adam_learning_rate={shown(train.adam_learning_rate)} stays, Adam's steps do not depend on the batch"
    elif batch == data.batch_size:
        why = f"--base_learning_rate={shown(rate)} is for this batch"
    else:
        rate = float(f"{train.base_learning_rate * batch / data.batch_size:.3g}")
        why = f"--base_learning_rate={shown(train.base_learning_rate)} for {data.batch_size} becomes {shown(rate)}"
    return _with(experiment, batch, rate), f"{_FLAG}: {batch}: {line}; {why}"


def _with(experiment: Experiment, batch: int, rate: float) -> Experiment:
    """Returns the experiment with another batch and rate; its classes are those of its data set."""
    data = dataclasses.replace(experiment.data, batch_size=batch)
    train = dataclasses.replace(experiment.train, base_learning_rate=rate)
    return dataclasses.replace(experiment, data=data, train=train).on(dataset_of(data))


def planned_to_fit(recipe: Experiment, given: Given, tell: Tell = _silent) -> Plan:
    """Returns the plan of a recipe that follows the data, for the largest batch that fits.

    Args:
      recipe: as `finetuning.plan` takes it.
      given: configuration -> the fields that the user gives, without the batch.
      tell: gets a line where it takes a while.

    Raises:
      DeepLabError: as `plan` and `fitting` raise it.
    """
    first = plan(recipe, given)
    if _begun(first.experiment):
        folder, batch = first.experiment.run.train_logdir, first.experiment.data.batch_size
        return Plan(first.experiment, (*first.lines, f"{_FLAG}: {batch}, as the run in {folder} began with it"))
    batch, line = fitting(first.experiment, tell)
    fixed = {"crop_size": first.experiment.data.crop_size, "batch_size": batch}
    again = plan(recipe, {**given, DataConfig: {**given.get(DataConfig, {}), **fixed}})
    own = ("--train_crop_size=", "--train_batch_size=")
    lines = [text for text in again.lines if not text.startswith(own)]
    crop = [text for text in first.lines if text.startswith(own[0])]
    return Plan(again.experiment, (*lines[:1], *crop, f"{_FLAG}: {batch}: {line}", *lines[1:]))
