"""The crops and the batch of a training on data of one's own: by the sizes of its pictures and the memory at hand."""

import dataclasses
import math

import numpy as np

from deeplab_tf.config import DataConfig, EvalConfig, ModelConfig, RunConfig
from deeplab_tf.data.record_sample import RecordSample
from deeplab_tf.network.sizes import LARGEST_CROP, crop_holding
from deeplab_tf.training import memory
from deeplab_tf.training.choices import Choice, Chosen

FULL_BATCH = 16  # of the papers
_LARGEST_ON_CPU = 321  # pixels of a crop's longer side: a step takes a second on two cores, not ten
_LARGEST_EVALUATED = 1025 * 2049  # pixels that an evaluation pads every picture to
_BATCHES = (FULL_BATCH, 12, 8, 4, 2, 1)


def choose_crop_and_batch(chosen: Chosen, sample: RecordSample, model: ModelConfig) -> None:
    """Chooses crops and batch by the sizes of the pictures and the memory at hand."""
    run: RunConfig = chosen.of(RunConfig)
    gpus = memory.gpus_used(run)
    replicas = max(gpus, run.num_clones if not gpus else 1)
    free, whose = memory.memory_at_hand(gpus)
    stride = max(model.output_stride, 16)
    middle, largest = np.median(sample.sizes, axis=0), sample.sizes.max(axis=0)
    limit = LARGEST_CROP if gpus else _LARGEST_ON_CPU
    crop = _within(middle, limit, stride)
    bounded = max(middle) > limit
    reason = f"the median picture is {_size(middle)}"
    reason += f", at most {limit} pixels a side {'on a GPU' if gpus else 'on a CPU'}" if bounded else ""
    batch_is_given = "batch_size" in chosen.given_of(DataConfig)
    if batch_is_given and "crop_size" in chosen.given_of(DataConfig):
        chosen.add(DataConfig, "crop_size", crop, reason)
        chosen.choices.append(Choice(DataConfig, "batch_size", FULL_BATCH, "the papers'"))
    else:
        own, each = memory.step_memory(dataclasses.replace(model, crop_size=crop), run.teacher)
        share = free if gpus else free // replicas
        least = chosen.of(DataConfig).batch_size // replicas if batch_is_given else _BATCHES[-3]
        while own + least * each > share and max(crop) > 8 * stride + 1:
            smaller = _within(np.array(crop) * 0.75, max(crop), stride)
            each = int(each * math.prod(smaller) / math.prod(crop))
            crop = smaller
            reason = f"{least} of the median picture, {_size(middle)}, take more than {_gib(share)} of {whose}"
        used = chosen.add(DataConfig, "crop_size", crop, reason)
        each = int(each * math.prod(used) / math.prod(crop))
        most = min(FULL_BATCH, max(1, sample.records // replicas))
        fitting = [size for size in _BATCHES if size <= most and own + size * each <= share] or [1]
        taken = (own + fitting[0] * each) * (1 if gpus else replicas)
        reason = f"an update of {fitting[0] * replicas} takes about {_gib(taken)} of {whose}"
        reason += f"; there are {sample.records} pictures" if sample.records < FULL_BATCH * replicas else ""
        chosen.add(DataConfig, "batch_size", fitting[0] * replicas, reason)
    holding = (crop_holding(float(largest[0]), stride), crop_holding(float(largest[1]), stride))
    if math.prod(holding) <= _LARGEST_EVALUATED:
        chosen.add(EvalConfig, "eval_crop_size", holding, f"holds the largest picture, {_size(largest)}")
    else:
        chosen.add(EvalConfig, "eval_crop_size", None, f"pictures of up to {_size(largest)} run each at its own size")


def _within(size: np.ndarray, limit: float, stride: int) -> tuple[int, int]:
    """Returns the crop of the proportions of `size` whose longer side is at most `limit`, k * stride + 1."""
    scale = min(1.0, limit / float(max(size)))
    height, width = (min(crop_holding(float(side) * scale, stride), _aligned_below(limit, stride)) for side in size)
    return max(height, 2 * stride + 1), max(width, 2 * stride + 1)


def _aligned_below(limit: float, stride: int) -> int:
    return int((limit - 1) // stride) * stride + 1 if (limit - 1) % stride else int(limit)


def _size(size: np.ndarray) -> str:
    return f"{size[0]:g} x {size[1]:g}"


def _gib(size: float) -> str:
    return f"{size / 2**30:.2g} GiB"
