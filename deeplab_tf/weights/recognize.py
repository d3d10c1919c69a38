"""The network that a set of variable names and shapes belongs to, and what names and shapes cannot tell of it."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from deeplab_tf.arch import ARCHITECTURES, dense_prediction_cell, head
from deeplab_tf.arch.spec import Architecture
from deeplab_tf.arch.units import Activation, Conv, MaxPool, NasCell, SeparableUnit
from deeplab_tf.errors import DeepLabError

# TF1 variable name -> shape.
Shapes = Mapping[str, tuple[int, ...]]
# Fields of ModelConfig and their values.
Fields = dict[str, Any]
Kind = Literal["segmentation", "backbone"]

_MULTIPLIERS = (1.0, 0.5, 0.75, 0.35, 0.25, 1.25, 1.3, 1.4, 1.5, 2.0, *(k / 100 for k in range(10, 301)))
# Rates that the papers use without ASPP of the v3 kind, at output stride 8: LargeFOV, ASPP-L.
_V2_RATES = {1: (12,), 4: (6, 12, 18, 24)}


@dataclasses.dataclass(frozen=True)
class Recognized:
    """The network as far as names and shapes tell it.

    Attributes:
      kind: "segmentation", or "backbone" if there is no head.
      known: fields of ModelConfig that the shapes decide.
      assumed: fields that they cannot tell, with the conventional value; None: there is none, the user must give it.
      branches: the number of atrous branches, hence of atrous_rates.
    """

    kind: Kind
    known: Fields
    assumed: Fields
    branches: int = 0


@dataclasses.dataclass(frozen=True)
class BackboneOptions:
    """Options of a backbone; those that are not known have ModelConfig's default."""

    output_stride: int = 16
    depth_multiplier: float = 1.0
    divisible_by: int | None = None
    smallest_width: int | None = None
    expand_ratio: float = 6.0
    expand_first_block: bool = False
    fixed_padding: bool = False
    multi_grid: tuple[int, ...] | None = None
    cascade_blocks: int = 0
    nas_stem_output_num_conv_filters: int = 20
    nas_use_classification_head: bool = False
    nas_remove_os32_stride: bool = False


def width_options(architecture: Architecture, preferred: Mapping[str, Any]) -> Iterator[Fields]:
    """Yields candidates for the fields that scale the backbone's channels.

    The user's values come first, because several multipliers can round to the same widths.
    """
    if not architecture.scaled_by:
        yield {}
        return
    multipliers = [*(preferred[n] for n in ("depth_multiplier",) if n in preferred), *_MULTIPLIERS]
    divisors: list[int | None] = [None]
    if "divisible_by" in architecture.scaled_by:
        divisors = [*(preferred[n] for n in ("divisible_by",) if n in preferred), None, 8]
    for divisor in divisors:
        for multiplier in multipliers:
            options: Fields = {"depth_multiplier": float(multiplier)}
            yield options if divisor is None else {**options, "divisible_by": int(divisor)}


def _nas_options(shapes: Shapes, architecture: Architecture) -> Iterator[Fields]:
    """Yields candidates for the fields that change a searched network."""
    first = shapes.get(f"{architecture.scope}/cell_0/1x1/weights")
    if not first:
        return
    classifies = f"{architecture.scope}/classification_head_conv/weights" in shapes
    for stride in (8, 16, 32):
        narrow = BackboneOptions(output_stride=stride, nas_stem_output_num_conv_filters=1)
        # The first cell is as many times wider than the option says as its level asks for.
        factor = next(row.filters for row in architecture.units(narrow) if isinstance(row, NasCell))
        yield {
            "output_stride": stride,
            "nas_stem_output_num_conv_filters": first[-1] // factor,
            "nas_use_classification_head": classifies,
        }


def _cascade_options(shapes: Shapes, architecture: Architecture) -> Iterator[Fields]:
    """Yields the number of blocks behind a ResNet's block4."""
    present = {name.removeprefix(f"{architecture.scope}/").partition("/")[0] for name in shapes}
    count = 0
    while f"block{5 + count}" in present:
        count += 1
    yield {"cascade_blocks": count}


def _candidates(shapes: Shapes, architecture: Architecture, preferred: Mapping[str, Any]) -> Iterator[Fields]:
    if architecture.strides_from_rows:
        return _nas_options(shapes, architecture)
    if architecture.cascades:
        return _cascade_options(shapes, architecture)
    return width_options(architecture, preferred)


def _fits(shapes: Shapes, architecture: Architecture, options: Fields) -> bool:
    """Returns whether the backbone's variables are those of the rows: every unit with its width, and no other."""
    prefix = f"{architecture.scope}/"
    scopes: set[str] = set()
    for row in architecture.units(BackboneOptions(**options)):
        if isinstance(row, MaxPool | Activation):
            continue
        weights, width = row.output_weights
        if shapes.get(prefix + weights, (None,))[-1] != width:
            return False
        scopes |= set(row.scopes) if isinstance(row, SeparableUnit) else {row.scope}
        if isinstance(row, Conv) and row.norm_scope:
            scopes.add(row.norm_scope)
    # An ImageNet classifier may follow; fc6 stands for fc6_1 and so on too.
    end = "" if architecture.fully_connected else "/"
    classifier = tuple(f"{scope}{end}" for scope in architecture.classifier_scopes)
    inside = (name.removeprefix(prefix) for name in shapes if name.startswith(prefix))
    return all(any(name.startswith(f"{s}/") for s in scopes) for name in inside if not name.startswith(classifier))


def _backbone(shapes: Shapes, preferred: Mapping[str, Any]) -> tuple[Architecture, Fields]:
    """Returns the backbone and the fields that its shapes decide."""
    scopes = {name.partition("/")[0] for name in shapes}
    candidates = [a for a in ARCHITECTURES.values() if a.scope in scopes]
    # Two variants may have the same variables (ResNet-101 and its Caffe form): the user's comes first.
    candidates.sort(key=lambda architecture: architecture.name != preferred.get("model_variant"))
    for architecture in candidates:
        for options in _candidates(shapes, architecture, preferred):
            if _fits(shapes, architecture, options):
                return architecture, options
    known = ", ".join(sorted({a.scope for a in ARCHITECTURES.values()}))
    if not candidates:
        raise DeepLabError(f"no known backbone among the scopes {sorted(scopes)[:8]}; expected one of {known}")
    names = ", ".join(a.name for a in candidates)
    raise DeepLabError(
        f"the variables under {candidates[0].scope}/ are not those of {names} at any depth multiplier: units are "
        "missing, added or of another width; if the file is whole, give --model_variant and its options"
    )


def _bands(shapes: Shapes, architecture: Architecture, options: Fields) -> Fields:
    """Returns the number of bands that the first convolution reads, where it is not three."""
    first = architecture.units(BackboneOptions(**options))[0]
    if not isinstance(first, Conv):
        return {}
    channels = shapes[f"{architecture.scope}/{first.output_weights[0]}"][2]
    return {} if channels == 3 else {"input_channels": channels}


def _normalization(shapes: Shapes, architecture: Architecture) -> Fields:
    """Returns the norms of a backbone that may have others than batch norms; their groups leave no trace."""
    if "normalization_method" not in architecture.takes:
        return {}
    names = [name for name in shapes if name.startswith(f"{architecture.scope}/block1/")]
    if any("/GroupNorm/" in name for name in names):
        return {"normalization_method": "group"}
    biased = any(name.endswith("/biases") for name in names)
    return {"normalization_method": "none"} if biased else {}


def _logits(shapes: Shapes) -> Fields:
    """Returns the known fields of the last layer."""
    weights = shapes.get("logits/semantic/weights")
    if weights:
        return {"num_classes": weights[-1], "logits_kernel_size": weights[0]}
    for scope in ("decoder/decoder_conv0", "decoder/decoder_conv0/decoder_conv0_2"):
        if f"{scope}/biases" in shapes:
            return {"num_classes": shapes[f"{scope}/biases"][0], "decoder_output_is_logits": True}
    raise DeepLabError(
        "there is a head but no logits: neither logits/semantic/weights nor decoder/decoder_conv0/biases; the file is "
        "incomplete"
    )


def _rates(count: int, output_stride: int) -> tuple[int, ...] | None:
    """Returns the papers' rates for three branches: 6,12,18 at output stride 16, in proportion at others."""
    return tuple(k * 96 // output_stride for k in (1, 2, 3)) if count == 3 else None


def _aspp(shapes: Shapes) -> tuple[Fields, int]:
    """Returns the known fields of ASPP and its number of atrous branches."""
    known: Fields = {
        "aspp_with_batch_norm": True,
        "aspp_convs_filters": shapes["aspp0/weights"][-1],
        "add_image_level_feature": "image_pooling/weights" in shapes,
        "aspp_with_squeeze_and_excitation": "image_pooling/biases" in shapes,
        "aspp_with_concat_projection": "concat_projection/weights" in shapes,
    }
    count = 0
    while {f"aspp{count + 1}_depthwise/depthwise_weights", f"aspp{count + 1}/weights"} & set(shapes):
        count += 1
    if count:
        known["aspp_with_separable_conv"] = "aspp1_depthwise/depthwise_weights" in shapes
    behind = 0
    while f"aspp_conv{behind}/weights" in shapes:
        behind += 1
    known |= {"aspp_output_convs": behind} if behind else {}
    return known, count


def _cell(shapes: Shapes) -> Fields:
    """Returns the shipped dense prediction cell if its branches are there; shapes tell neither inputs nor rates."""
    branches = {name.split("/")[1] for name in shapes if name.startswith("meta_architecture/branch")}
    numbers = {int(name.removeprefix("branch").partition("_")[0]) for name in branches}
    shipped = dense_prediction_cell.CITYSCAPES_TOP1
    separable = all(name.endswith(("_depthwise", "_pointwise")) for name in branches)
    fits = separable and numbers == set(range(len(shipped)))
    return {"dense_prediction_cell_json": shipped if fits else None}


def _fully_connected(shapes: Shapes, scope: str) -> tuple[Fields, int]:
    """Returns the known fields of DeepLab-v1's or v2's fc6 and fc7, and the number of their atrous rates."""
    count = 0
    while f"{scope}/fc6_{count + 1}/weights" in shapes:
        count += 1
    kernel, _, _, filters = shapes[f"{scope}/fc6_1/weights" if count else f"{scope}/fc6/weights"]
    multi_scale = "multi_scale/image/conv1/weights" in shapes
    known = {"fc_kernel_size": kernel, "fc_filters": filters, "multi_scale_features": multi_scale}
    return known, count or 1


def _v2_style(shapes: Shapes, architecture: Architecture, known: Fields) -> tuple[Fields, int]:
    """Returns the known fields of a head without ASPP of the v3 kind, and the number of its atrous rates."""
    if any(name.startswith(f"{architecture.scope}/fc6") for name in shapes):
        fields, count = _fully_connected(shapes, architecture.scope)
        return {"aspp_with_batch_norm": False, **fields}, count
    # Each rate has logits of its own, which are summed. A single 1x1 convolution has no rate.
    logits = sum(name.startswith("logits/semantic") and name.endswith("/weights") for name in shapes)
    count = logits if logits > 1 or known.get("logits_kernel_size", 1) > 1 else 0
    return {"aspp_with_batch_norm": False}, count


def _decoder_convs(shapes: Shapes) -> Fields:
    """Returns number and kernel of the convolutions in the first stage of a decoder that concatenates."""
    forms = ("decoder_conv{0}_depthwise/depthwise_weights", "decoder_conv0/decoder_conv0_{1}/weights")
    for form in forms:
        count = 0
        while f"decoder/{form.format(count, count + 1)}" in shapes:
            count += 1
        if count:
            return {"decoder_convs": count, "decoder_kernel_size": shapes[f"decoder/{form.format(0, 1)}"][0]}
    return {}


def _decoder(shapes: Shapes, architecture: Architecture, options: Fields) -> Fields:
    """Returns the known fields of the decoder; its strides follow from the widths of the features it reads."""
    scope = "decoder/feature_projection0"
    stages = [s for s in ("", "_1", "_2") if f"{scope}{s}/weights" in shapes]
    if not stages:
        return {}
    widths = architecture.decoder_widths(BackboneOptions(**options))
    strides: list[int] = []
    for stage in stages:
        channels = shapes[f"{scope}{stage}/weights"][2]
        stride = next((s for s, width in widths.items() if width == channels), None)
        if stride is None:
            raise DeepLabError(
                f"{scope}{stage}: {channels} input channels; expected a width that {architecture.name}'s decoder reads "
                f"(stride: channels), one of {widths}"
            )
        strides.append(stride)
    sums = [n for n in ("decoder_split_sep_conv0_pointwise", "decoder_conv0") if f"decoder/{n}/weights" in shapes]
    outputs = (*sums, "decoder_conv0_pointwise", "decoder_conv0/decoder_conv0_1")
    filters = next(shapes[f"decoder/{n}/weights"][-1] for n in outputs if f"decoder/{n}/weights" in shapes)
    separable = any(name.startswith("decoder/") and name.endswith("depthwise_weights") for name in shapes)
    known: Fields = {
        "decoder_output_stride": tuple(strides),
        "decoder_filters": filters,
        "decoder_use_sum_merge": bool(sums),
    }
    if not sums:
        known["decoder_projection_filters"] = shapes[f"{scope}/weights"][-1]
        known |= _decoder_convs(shapes)
    if f"{scope}/biases" not in shapes:
        known["decoder_use_separable_conv"] = separable
    return known


def _assumed(known: Fields, architecture: Architecture, branches: int) -> Fields:
    """Returns the fields that shapes cannot tell."""
    # DeepLab-v1 and v2 have rates without ASPP of the v3 kind, and always run at 8.
    version_2 = bool(branches) and not known["aspp_with_batch_norm"]
    assumed: Fields = {}
    if "output_stride" not in known:
        assumed["output_stride"] = architecture.usual_output_stride or (8 if version_2 else 16)
    if branches:
        assumed["atrous_rates"] = _rates(branches, {**known, **assumed}["output_stride"])
    if version_2 and known.get("fc_kernel_size", 3) == 3:
        assumed["atrous_rates"] = _V2_RATES.get(branches)
    if known.get("aspp_with_squeeze_and_excitation"):
        assumed["image_se_uses_qsigmoid"] = architecture.gate_is_q_sigmoid
    if architecture.multi_grid_length:
        assumed["multi_grid"] = (1,) * architecture.multi_grid_length
    if "normalization_method" in known:
        assumed["use_weight_standardization"] = False
        assumed |= {"group_norm_groups": 32} if known["normalization_method"] == "group" else {}
    if architecture.bounded:
        assumed["use_bounded_activation"] = False
    return assumed


def recognize(shapes: Shapes, preferred: Mapping[str, Any] | None = None) -> Recognized:
    """Returns the network of given variables, as far as their names and shapes tell it.

    Args:
      shapes: TF1 variable name -> shape, without training state.
      preferred: fields of ModelConfig that the user gave; they decide if several values give the same shapes.

    Raises:
      DeepLabError: no backbone of the release fits, the head is incomplete, or a shape has too few sides.
    """
    try:
        return _recognized(shapes, preferred or {})
    except DeepLabError:
        raise
    except (LookupError, ValueError, TypeError, StopIteration) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise DeepLabError(f"its names are those of a network, and its shapes are not ({reason})") from None


def _recognized(shapes: Shapes, preferred: Mapping[str, Any]) -> Recognized:
    architecture, options = _backbone(shapes, preferred)
    known: Fields = {"model_variant": architecture.name, **options, **_bands(shapes, architecture, options)}
    known |= _normalization(shapes, architecture)
    if not any(name.startswith(head.BEGINNINGS) for name in shapes):
        return Recognized("backbone", known, _assumed(known, architecture, 0))
    known |= _logits(shapes)
    assumed: Fields = {}
    branches = 0
    if "aspp0/weights" in shapes:
        aspp, branches = _aspp(shapes)
        known |= aspp
    elif "meta_architecture/concat_projection/weights" in shapes:
        assumed = _cell(shapes)
    else:
        fields, branches = _v2_style(shapes, architecture, known)
        known |= fields
    known |= _decoder(shapes, architecture, options)
    assumed |= _assumed(known, architecture, branches)
    return Recognized("segmentation", known, assumed, branches)
