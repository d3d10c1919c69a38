"""What the user changes of a network's options: refused where it contradicts the weights or would do nothing."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from deeplab_tf.arch import ARCHITECTURES, nas
from deeplab_tf.arch.spec import Architecture
from deeplab_tf.config.model import INFERENCE_FIELDS, ModelConfig
from deeplab_tf.errors import DeepLabError


@dataclasses.dataclass(frozen=True)
class _Rule:
    """These fields do something only where `met` says so; `needs` ends the sentence "it needs ..."."""

    fields: tuple[str, ...]
    needs: str
    met: Callable[[ModelConfig], object]


def _architecture(config: ModelConfig) -> Architecture:
    return ARCHITECTURES[config.model_variant]


def _has_aspp(config: ModelConfig) -> bool:
    return config.aspp_with_batch_norm and not config.dense_prediction_cell_json


def _pools(config: ModelConfig) -> bool:
    return _has_aspp(config) and config.add_image_level_feature


def _pools_in_cell(config: ModelConfig) -> bool:
    cell = config.dense_prediction_cell_json if config.aspp_with_batch_norm else None
    return any(branch.op == "pyramid_pooling" for branch in cell or ())


def _is_fully_connected(config: ModelConfig) -> bool:
    return _architecture(config).fully_connected and not config.aspp_with_batch_norm


def _has_bounds(config: ModelConfig) -> object:
    """Returns whether there is an activation that use_bounded_activation bounds; a cell's are not, and logits none."""
    decoder = config.decoder_output_stride and not config.decoder_output_is_logits
    return _architecture(config).bounded or _has_aspp(config) or decoder or _is_fully_connected(config)


_ASPP = "ASPP: --aspp_with_batch_norm, and no --dense_prediction_cell_json"
_POOLED = "the pooled feature of ASPP: --add_image_level_feature and --aspp_with_batch_norm"
_DECODER = (
    *("decoder_use_separable_conv", "decoder_filters", "decoder_projection_filters", "decoder_convs"),
    *("decoder_kernel_size", "decoder_use_sum_merge", "decoder_output_is_logits"),
)
_NAS = ("nas_stem_output_num_conv_filters", "nas_use_classification_head", "nas_remove_os32_stride")

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(ModelConfig)}

# What network/head.py and the rows of arch/ read.
_RULES = (
    _Rule(
        ("add_image_level_feature", "aspp_with_concat_projection", "aspp_convs_filters", "aspp_output_convs"),
        _ASPP,
        _has_aspp,
    ),
    _Rule(("image_pooling_stride",), _POOLED, _pools),
    _Rule(
        ("image_pooling_crop_size",),
        f"{_POOLED}; or a cell that pools",
        lambda config: _pools(config) or _pools_in_cell(config),
    ),
    _Rule(("aspp_with_squeeze_and_excitation",), _POOLED, _pools),
    _Rule(
        ("image_se_uses_qsigmoid",),
        "--aspp_with_squeeze_and_excitation",
        lambda config: _pools(config) and config.aspp_with_squeeze_and_excitation,
    ),
    _Rule(
        ("aspp_with_separable_conv",),
        "--atrous_rates and ASPP (--aspp_with_batch_norm, and no --dense_prediction_cell_json)",
        lambda config: _has_aspp(config) and config.atrous_rates,
    ),
    _Rule(
        ("atrous_rates",),
        "a network without --dense_prediction_cell_json, which has rates of its own",
        lambda config: not (config.aspp_with_batch_norm and config.dense_prediction_cell_json),
    ),
    _Rule(("dense_prediction_cell_json",), "--aspp_with_batch_norm", lambda config: config.aspp_with_batch_norm),
    _Rule(("multi_grid",), "a ResNet or an Xception", lambda config: _architecture(config).multi_grid_length),
    _Rule(
        ("depth_multiplier",),
        "a MobileNet or VGG-16",
        lambda config: "depth_multiplier" in _architecture(config).scaled_by,
    ),
    _Rule(("divisible_by",), "a MobileNetV2", lambda config: "divisible_by" in _architecture(config).scaled_by),
    _Rule(("fc_kernel_size", "fc_filters"), "VGG-16 with --noaspp_with_batch_norm", _is_fully_connected),
    _Rule(("use_bounded_activation",), "an Xception, ASPP or a decoder", _has_bounds),
    _Rule(_DECODER, "--decoder_output_stride", lambda config: config.decoder_output_stride),
    _Rule(
        ("decoder_use_separable_conv",),
        "a decoder whose output is not the logits: no --decoder_output_is_logits",
        lambda config: not config.decoder_output_is_logits,
    ),
    _Rule(
        ("decoder_projection_filters", "decoder_convs"),
        "a decoder that concatenates: no --decoder_use_sum_merge",
        lambda config: not config.decoder_use_sum_merge,
    ),
    _Rule(
        ("decoder_kernel_size",),
        "a decoder without both --decoder_use_sum_merge and --decoder_output_is_logits, whose kernel is 1",
        lambda config: not (config.decoder_use_sum_merge and config.decoder_output_is_logits),
    ),
    _Rule(
        ("merge_method",), "an --image_pyramid of several scales", lambda config: len(config.image_pyramid or ()) > 1
    ),
    _Rule(("group_norm_groups",), "--normalization_method=group", lambda c: c.normalization_method == "group"),
    _Rule(_NAS, "a --model_variant of NAS", lambda config: _architecture(config) in nas.ARCHITECTURES),
)


def require_effect(config: ModelConfig, names: Iterable[str]) -> None:
    """Raises DeepLabError for a field that the user gives and that changes nothing in the network.

    A default is never refused: command lines say more than they must.

    Args:
      config: the network with what the user gives.
      names: the fields that the user gives.
    """
    given = {name for name in names if getattr(config, name) != _DEFAULTS[name]}
    for rule in _RULES:
        for name in rule.fields:
            if name in given and not rule.met(config):
                value: Any = getattr(config, name)
                shown = ",".join(map(str, cast("tuple[Any, ...]", value))) if isinstance(value, tuple) else value
                equals = "" if name == "dense_prediction_cell_json" else f"={shown}"
                raise DeepLabError(
                    f"--{name}{equals} would do nothing: it needs {rule.needs}; leave it out or give that"
                )


def override(config: ModelConfig, changes: Mapping[str, Any], *, remembered: Iterable[str], source: str) -> ModelConfig:
    """Returns `config` with the explicit `changes`.

    Args:
      config: the configuration.
      changes: fields that the user gives.
      remembered: the fields that are known of the weights.
      source: what they are known from: a model directory, a checkpoint's shapes.

    Raises:
      DeepLabError: a change contradicts a remembered field that is not one of INFERENCE_FIELDS, and it names both
        values; or a change would do nothing.
    """
    remembered = set(remembered)
    changed = dataclasses.replace(config, **changes)
    news: list[str] = []
    for name in changes:
        old = getattr(config, name)
        new = getattr(changed, name)
        if old != new and name in remembered and name not in INFERENCE_FIELDS:
            raise DeepLabError(f"--{name}={new} contradicts {source}, which has {name}={old}; leave the flag out")
        # Whole command lines of the release give every backbone a multi_grid, and read any checkpoint.
        if (old != new or name not in remembered) and name != "multi_grid":
            news.append(name)
    require_effect(changed, news)
    return changed
