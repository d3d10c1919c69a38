r"""Describes a network: parameters, multiply-adds, memory, atrous rates and receptive field, as a whole and by part.

  deeplab-tf describe xception65_coco_voc_trainaug --crop_size=513,513
  deeplab-tf describe models/mine weights.pth hf://google/deeplabv3_mobilenet_v2_1.0_513
  deeplab-tf describe v3plus_xception65
  deeplab-tf describe --model_variant=resnet_v1_50_beta --atrous_rates=6,12,18 --output_stride=16

MODEL is anything that predict takes for --checkpoint, or a recipe of train's --config; without one the flags of the
network alone are described. Counts are for one image of --crop_size, 513 x 513 unless the model has another. The
network is built without its weights.
"""

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from deeplab_tf import configs
from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import ModelConfig, override
from deeplab_tf.config.inference import LONGEST_SIDE
from deeplab_tf.tools import help_pages, options

_FLOAT = 4  # bytes


_FIRST = ("checkpoint", "model_variant", "crop_size", "output_stride", "atrous_rates", "decoder_output_stride")


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    text = f"{options.RUNNABLE_HELP}; or a recipe of train's --config; several are allowed"
    options.define_paths(values, "checkpoint", None, text)
    options.define_flags(values, ModelConfig)
    help_pages.put_first(values, _FIRST)


def _config(name: str, changes: Mapping[str, Any]) -> tuple[ModelConfig, str]:
    """Returns the network of a recipe or of weights, and its kind."""
    if name in configs.names():
        config = configs.read(name).model
        return override(config, changes, remembered=(), source=f"the recipe {name}"), "segmentation"
    from deeplab_tf.weights.describing import describe_weights
    from deeplab_tf.weights.exported import find_export

    if export := find_export(name):
        return override(export.card.config, changes, remembered=(), source=name), "segmentation"
    found = describe_weights(name, changes)
    return dataclasses.replace(found.config, **changes), found.kind


def _millions(number: int | None) -> str | None:
    return None if number is None else f"{number:,} ({number / 1e6:.2f} M)"


def _megabytes(values: int) -> str:
    return f"{values * _FLOAT / 2**20:.1f} MiB"


def _pixels(field: float) -> str:
    return "the whole image" if math.isinf(field) else f"{field:.0f} pixels"


def _rates(model: Any, scope: str) -> str | None:
    """Returns the atrous rates of a part of a network, each with the number of its convolutions."""
    layers = [layer for layer in model.layers if layer.name.startswith(f"{scope}.")]
    rates = [max(layer.dilation_rate) for layer in layers if hasattr(layer, "dilation_rate")]
    counts = collections.Counter(rate for rate in rates if rate > 1)
    return ", ".join(f"{rate} ({count} convolutions)" for rate, count in sorted(counts.items())) or None


def _rows(config: ModelConfig, kind: str) -> Iterator[tuple[str, object]]:
    """Yields the rows of the table of a network."""
    from deeplab_tf.network.backbone import build_backbone
    from deeplab_tf.network.build import build_model
    from deeplab_tf.network.cost import activation_values, model_cost
    from deeplab_tf.network.receptive_field import receptive_fields

    config = config if config.crop_size else dataclasses.replace(config, crop_size=(LONGEST_SIDE, LONGEST_SIDE))
    architecture = ARCHITECTURES[config.model_variant]
    model = build_model(config, zeros=True) if kind == "segmentation" else build_backbone(config)
    whole, backbone = model_cost(model), model_cost(model, scope=architecture.scope)
    assert config.crop_size is not None
    yield "kind", kind
    yield from config.to_json().items()
    yield "image", f"{config.crop_size[0]} x {config.crop_size[1]} x {config.input_channels}"
    yield "parameters", _millions(whole.parameters)
    yield "  backbone", _millions(backbone.parameters)
    yield "  head", _millions(whole.parameters - backbone.parameters) if kind == "segmentation" else None
    yield "multiply-adds", _millions(whole.multiply_adds)
    yield "  backbone's", _millions(backbone.multiply_adds)
    yield "variables", whole.variables
    yield "weights", f"{_megabytes(sum(math.prod(weight.shape) for weight in model.weights))} in float32"
    yield "all maps", f"{_megabytes(sum(activation_values(model)))} in float32 for one image, which training keeps"
    yield "rates in the backbone", _rates(model, architecture.scope)
    yield "rates in the head", ", ".join(map(str, config.atrous_rates)) if config.atrous_rates else None
    fields = receptive_fields(model)
    inside = [field for name, field in fields.items() if name.startswith(f"{architecture.scope}.")]
    yield "receptive field, backbone", _pixels(max(inside))
    if kind == "segmentation":
        yield "receptive field, logits", _pixels(max(fields.values()))


def main(values: flags.FlagValues) -> None:
    """Prints a table for each network."""
    changes = options.given(values, ModelConfig)
    options.start_tensorflow()
    for name in values.checkpoint or [""]:
        config, kind = _config(name, changes) if name else (ModelConfig(**changes), "segmentation")
        shown = name or "the flags"
        print(f"{shown}\n{options.table(dict(_rows(config, kind)))}")


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv, rest_is="checkpoint")


if __name__ == "__main__":
    run()
