"""Small networks that the tests of prediction, export and serving share, with weights that give every class."""

import dataclasses

import numpy as np
from conftest import fill
from golden import golden_image

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.arch.spec import Architecture
from deeplab_tf.arch.units import InvertedResidual, NasCell, ResNetUnit, XceptionUnit
from deeplab_tf.config import ModelConfig
from deeplab_tf.network.build import build_model
from deeplab_tf.weights.tf1 import variable_map

SMALL = ModelConfig(model_variant="mobilenet_v2", depth_multiplier=0.25, num_classes=6, aspp_convs_filters=16)
# Of 6 units instead of 18, for what does not depend on the backbone.
TINY = dataclasses.replace(SMALL, model_variant="tiny", depth_multiplier=1.0)
DECODER = dataclasses.replace(SMALL, atrous_rates=(1, 2), decoder_output_stride=(4,), decoder_filters=16)
TINY_DECODER = dataclasses.replace(TINY, atrous_rates=(1, 2), decoder_output_stride=(4,), decoder_filters=16)
V3 = ModelConfig(
    model_variant="mobilenet_v3_small_seg",
    num_classes=6,
    output_stride=32,
    depth_multiplier=0.5,
    aspp_with_concat_projection=False,
    aspp_with_squeeze_and_excitation=True,
    image_se_uses_qsigmoid=True,
    decoder_use_sum_merge=True,
    decoder_filters=6,
    decoder_output_is_logits=True,
    decoder_output_stride=(8,),
    aspp_convs_filters=16,
    image_pooling_crop_size=(65, 65),
    image_pooling_stride=(1, 2),
)


def _golden(config: ModelConfig):
    model = build_model(config, zeros=True)
    fill(model)
    return model


# By configuration, with the architecture that it was made for: a test may have put another in the place of the shipped.
_SPREAD: dict[ModelConfig, tuple[Architecture, dict[str, np.ndarray]]] = {}


def _spread(config: ModelConfig) -> dict[str, np.ndarray]:
    """Returns what the last layers of a network with golden weights need for logits that are spread evenly."""
    scope = "decoder/decoder_conv0" if config.decoder_output_is_logits else "logits/semantic"
    scopes = [scope, "decoder/feature_projection0"] if config.decoder_output_is_logits else [scope]
    image = golden_image("lively", *(config.crop_size or (129, 129)))[None].astype(np.float32)
    whole = _golden(dataclasses.replace(config, crop_size=image.shape[1:3]))
    logits, names = whole(image, training=False).numpy(), variable_map(whole)
    mean, factor = logits.mean((0, 1, 2)), 3 / logits.std((0, 1, 2))
    spread = {}
    for number, scope in enumerate(scopes):
        spread[f"{scope}/weights"] = names[f"{scope}/weights"].numpy() * factor
        spread[f"{scope}/biases"] = (names[f"{scope}/biases"].numpy() - (0 if number else mean)) * factor
    return spread


def lively(config: ModelConfig):
    """Returns a model with golden weights whose logits are spread evenly, so that every class occurs."""
    model = _golden(config)
    architecture, names = ARCHITECTURES[config.model_variant], variable_map(model)
    if config not in _SPREAD or _SPREAD[config][0] is not architecture:
        _SPREAD[config] = architecture, _spread(config)
    for name, value in _SPREAD[config][1].items():
        names[name].assign(value)
    return model


def an_eighth(unit):
    """A unit of a backbone with an eighth of its channels. MobileNets, VGG-16 and cells have options for that."""
    if isinstance(unit, XceptionUnit):
        return dataclasses.replace(unit, filters=tuple(filters // 8 for filters in unit.filters))
    if isinstance(unit, ResNetUnit):
        return dataclasses.replace(unit, filters=unit.filters // 8, bottleneck=unit.bottleneck and unit.bottleneck // 8)
    return unit


BLOCKS = (InvertedResidual, NasCell, ResNetUnit, XceptionUnit)


def _width(row) -> int | None:
    return row.output_weights[1] if hasattr(row, "output_weights") else None


def bare(rows) -> list:
    """The rows without names and without what depends on their number."""
    names = {"scope": "", "end_point": None, "depth": 0.0}
    return [dataclasses.replace(r, **{k: v for k, v in names.items() if hasattr(r, k)}) for r in rows]


def reduced(architecture: Architecture) -> Architecture:
    """The backbone narrow, and without the units that do what the one before does to a map of the same channels.

    What the decoder reads stays. Of Auto-DeepLab's twelve cells the first six stay: they go up and down the levels and
    end at its output stride.
    """

    def units(config):
        rows = [an_eighth(unit) for unit in architecture.units(config)]
        if architecture.name == "nas_hnasnet":
            rows = [row for row in rows if not isinstance(row, NasCell) or int(row.end_point.removeprefix("Cell_")) < 6]
        nameless, widths = bare(rows), [_width(row) for row in rows]
        read = [architecture.decoder_end_points[stride] for stride in config.decoder_output_stride or ()]
        taps = {name.removeprefix(f"{architecture.scope}/") for name in read}

        def repeats(n):
            alike = nameless[n - 1 : n] == [nameless[n]] and widths[n - 2] == widths[n - 1]
            return isinstance(rows[n], BLOCKS) and alike and not taps & set(rows[n].tap_widths)

        return tuple(row for n, row in enumerate(rows) if not repeats(n))

    return dataclasses.replace(architecture, units=units)
