"""The check of a network's options: strides, rates, crops and batches that do not belong together."""

from collections.abc import Iterator, Mapping
from typing import Any

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import ModelConfig
from deeplab_tf.config.train import LEAST_BATCH
from deeplab_tf.doctor.findings import NOTE, WARNING, Finding

_RATES_AT_16 = (6, 12, 18)  # of the papers, at output stride 16


def _stride_of(rates: tuple[int, ...]) -> int | None:
    """Returns the output stride for which the papers give these rates, if any."""
    strides = (stride for stride in (4, 8, 16, 32) if tuple(rate * 16 // stride for rate in _RATES_AT_16) == rates)
    return next(strides, None)


def network_findings(config: ModelConfig) -> Iterator[Finding]:
    """Yields findings on a network's output stride, rates and crop."""
    stride = config.output_stride
    rates = config.atrous_rates or ()
    expected = _stride_of(rates) if config.aspp_with_batch_norm else None
    if expected and expected != stride:
        proper = ",".join(str(rate * 16 // stride) for rate in _RATES_AT_16)
        shown = ",".join(map(str, rates))
        lines = (f"--atrous_rates={shown} belong to output stride {expected}, but this network has {stride}",)
        yield Finding("rates-for-stride", WARNING, lines, f"--atrous_rates={proper}, or --output_stride={expected}")
    if config.crop_size is None:
        return
    features = [-(-(side - 1) // stride) + 1 for side in config.crop_size]
    if rates and config.aspp_with_batch_norm and max(rates) >= min(features):
        shown = f"{features[0]} x {features[1]}"
        lines = (f"rate {max(rates)} on features of {shown}: all taps but the middle one see padding alone",)
        yield Finding("rates-exceed-features", WARNING, lines, "a larger crop, or lower rates")
    if any((side - 1) % stride for side in config.crop_size):
        shown = ",".join(map(str, config.crop_size))
        better = ",".join(str((side - 1) * stride + 1) for side in features)
        lines = (f"crop {shown} is not k * {stride} + 1: features and pixels are not aligned at the far edges",)
        yield Finding("crop-for-stride", NOTE, lines, f"a crop of {better}")


def training_findings(config: ModelConfig, options: Mapping[str, Any]) -> Iterator[Finding]:
    """Yields `network_findings`, and a finding if batch norm is trained on too few images.

    options: those of TrainConfig and DataConfig, by name.
    """
    yield from network_findings(config)
    has_norms = ARCHITECTURES[config.model_variant].batch_norm is not None or config.aspp_with_batch_norm
    learns = options.get("fine_tune_batch_norm", True) and not options.get("freeze_batch_norm")
    parts = options.get("gradient_accumulation_steps", 1)
    if not options.get("sync_batch_norm"):
        parts *= options.get("num_clones", 1)
    batch = options.get("batch_size", LEAST_BATCH) // parts
    if has_norms and learns and batch < LEAST_BATCH:
        shared = options.get("num_clones", 1) > 1 and not options.get("sync_batch_norm")
        several = "; each device has only a part of a batch" if shared else ""
        lines = (
            f"batch norm is trained on {batch} images at a time, the paper asks for {LEAST_BATCH} or more{several}",
        )
        cure = "a larger --train_batch_size (with a smaller crop), or --fine_tune_batch_norm=false"
        yield Finding("batch-norm-batch", WARNING, lines, cure)
