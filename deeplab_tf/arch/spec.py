"""The vocabulary of architectures: rows (units) of a backbone, and the one place where a stride becomes a rate."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from deeplab_tf.errors import DeepLabError

# Red, green, blue in 0..255.
Pixel = tuple[float, float, float]
SCALE_PIXEL: Pixel = (127.5, 127.5, 127.5)
LETTERBOX_PIXEL: Pixel = (128.0, 128.0, 128.0)
RGB_MEAN: Pixel = (123.15, 115.90, 103.06)
# What the Caffe models of DeepLab-v1 and v2 subtract (there in the order blue, green, red).
CAFFE_MEAN: Pixel = (122.675, 116.669, 104.008)
# ImageNet's mean and standard deviation on the scale 0..255, as torchvision and timm give them.
TORCH_MEAN: Pixel = (123.675, 116.28, 103.53)
TORCH_DEVIATION: Pixel = (58.395, 57.12, 57.375)

ActivationName = Literal["relu", "relu6", "hard_swish"]
Skip = Literal["conv", "sum", "rectified_sum", "none"]
Preprocessing = Literal["scale", "subtract_mean", "unit"]
ScalingField = Literal["depth_multiplier", "divisible_by"]
Initializer = Literal["truncated_normal", "resnet", "nas"]
# What a NAS cell adds up: two pairs of (number of the state, operation).
Combination = tuple[tuple[int, str], tuple[int, str]]


class BackboneOptions(Protocol):
    """The fields of `deeplab_tf.config.ModelConfig` that backbones read; ModelConfig lies on a floor above."""

    @property
    def output_stride(self) -> int:
        """Input size over size of the last feature map."""
        ...

    @property
    def depth_multiplier(self) -> float:
        """Scales the channels of a MobileNet or of VGG-16."""
        ...

    @property
    def divisible_by(self) -> int | None:
        """MobileNetV2 channels become a multiple of this."""
        ...

    @property
    def smallest_width(self) -> int | None:
        """MobileNetV2 channels are whole numbers before they become a multiple, and at least this."""
        ...

    @property
    def expand_ratio(self) -> float:
        """Channels inside an inverted residual over those that it reads."""
        ...

    @property
    def expand_first_block(self) -> bool:
        """Whether the first inverted residual has an expansion too, of ratio 1."""
        ...

    @property
    def fixed_padding(self) -> bool:
        """Whether strided convolutions pad alike on all sides at any size."""
        ...

    @property
    def multi_grid(self) -> tuple[int, ...] | None:
        """Unit rates of the last block (Xception), or of block4 and its copies (ResNet)."""
        ...

    @property
    def cascade_blocks(self) -> int:
        """Copies of a ResNet's block4 behind it."""
        ...

    @property
    def nas_stem_output_num_conv_filters(self) -> int:
        """Filters of the first NAS cell."""
        ...

    @property
    def nas_use_classification_head(self) -> bool:
        """Whether a NAS backbone ends in its classification head."""
        ...

    @property
    def nas_remove_os32_stride(self) -> bool:
        """Whether a NAS step to output stride 32 has no stride."""
        ...


def band_pixel(rgb: Sequence[float], channels: int, extra: Sequence[float] | None = None) -> tuple[float, ...]:
    """Returns a colour of `channels` bands: RGB, then the values of the `extra` bands (unset: 127.5 each)."""
    beyond = extra or (127.5,) * max(0, channels - len(rgb))
    return (*rgb, *beyond)[:channels]


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """Constants of a batch normalisation: decay of the moving averages, and epsilon."""

    decay: float
    epsilon: float


HEAD_BATCH_NORM = BatchNorm(decay=0.9997, epsilon=1e-5)


@dataclasses.dataclass(frozen=True)
class Conv:
    """Convolution, batch norm, activation. `explicit_padding` pads a strided one by kernel - 1 (fixed padding).

    `norm_scope` is the batch norm's own scope where it is not <scope>/BatchNorm; `end_point` is the name the output is
    tapped by (None: not tapped). `keep_for_cells` remembers the output before the activation for the NAS cells.
    """

    scope: str
    filters: int
    kernel: int = 3
    stride: int = 1
    rate: int = 1
    activation: ActivationName | None = "relu"
    explicit_padding: bool = False
    norm_scope: str | None = None
    end_point: str | None = None
    keep_for_cells: bool = False

    @property
    def output_weights(self) -> tuple[str, int]:
        """The kernel (below the backbone's scope) whose shape shows the width of the unit, and that width."""
        return f"{self.scope}/weights", self.filters

    @property
    def tap_widths(self) -> dict[str, int]:
        """End points that a decoder may read (below the scope where they carry it) and their channels."""
        return {self.end_point: self.filters} if self.end_point else {}


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """3x3 max pooling of a rectified map: SAME padding, or (`explicit_padding`) one pixel on every side.

    It is never dilated: behind a removed stride it still looks at direct neighbours, as the Caffe models do.
    """

    scope: str = "pool1"
    stride: int = 2
    explicit_padding: bool = False
    end_point: str | None = None


@dataclasses.dataclass(frozen=True)
class SeparableUnit:
    """Depthwise 3x3 and pointwise convolution, each with batch norm and activation (MobileNetV1).

    They lie under <scope>_depthwise and <scope>_pointwise.
    """

    scope: str
    filters: int
    stride: int = 1
    activation: ActivationName = "relu6"

    @property
    def scopes(self) -> tuple[str, str]:
        """The scopes of its two convolutions."""
        return f"{self.scope}_depthwise", f"{self.scope}_pointwise"

    @property
    def output_weights(self) -> tuple[str, int]:
        """The pointwise kernel, whose shape shows the width of the unit, and that width."""
        return f"{self.scope}_pointwise/weights", self.filters


@dataclasses.dataclass(frozen=True)
class XceptionUnit:
    """Three separable convolutions with a skip (release: core/xception.py).

    `skip` is conv, sum, rectified_sum (of the rectified input) or none; the stride sits on the third convolution;
    `activation_inside` activates after each depthwise and pointwise convolution instead of before each separable one;
    `rates` multiply the unit's rate.
    """

    scope: str
    filters: tuple[int, int, int]
    skip: Skip
    stride: int = 1
    activation_inside: bool = False
    rates: tuple[int, ...] = (1, 1, 1)
    ends_block: str | None = None

    @property
    def output_weights(self) -> tuple[str, int]:
        """The third pointwise kernel, whose shape shows the width of the unit, and that width."""
        return f"{self.scope}/separable_conv3_pointwise/weights", self.filters[-1]

    @property
    def tap_widths(self) -> dict[str, int]:
        """The three pointwise outputs, which a decoder may read, and their channels."""
        return {f"{self.scope}/separable_conv{i}_pointwise": f for i, f in enumerate(self.filters, start=1)}


@dataclasses.dataclass(frozen=True)
class InvertedResidual:
    """Expand, depthwise, (squeeze-and-excite), project (MobileNets). Widths are final, multipliers already applied.

    `expanded` equal to the input's width builds no expansion, unless `always_expands`. `explicit_padding` is as in
    `Conv`. `fused` replaces expansion and depthwise by one
    convolution `expand` with the kernel and the stride (EdgeTPU). The input is added where `residual` is true, the
    effective stride is 1 and the widths agree.
    """

    scope: str
    end_point: str
    inputs: int
    expanded: int
    filters: int
    kernel: int = 3
    stride: int = 1
    activation: ActivationName = "relu"
    squeeze: int | None = None
    fused: bool = False
    residual: bool = True
    explicit_padding: bool = False
    always_expands: bool = False

    @property
    def output_weights(self) -> tuple[str, int]:
        """The projection's kernel, whose shape shows the width of the unit, and that width."""
        return f"{self.scope}/project/weights", self.filters

    @property
    def tap_widths(self) -> dict[str, int]:
        """The outputs of depthwise convolution and projection, which a decoder may read, and their channels."""
        return {f"{self.end_point}/depthwise_output": self.expanded, f"{self.end_point}/output": self.filters}


@dataclasses.dataclass(frozen=True)
class ResNetUnit:
    """Bottleneck unit (conv1 1x1, conv2 3x3, conv3 1x1), or the lite unit of two 3x3 where `bottleneck` is None."""

    scope: str
    filters: int
    bottleneck: int | None
    stride: int = 1
    rate: int = 1
    ends_block: str | None = None

    @property
    def output_weights(self) -> tuple[str, int]:
        """The last convolution's kernel, whose shape shows the width of the unit, and that width."""
        return f"{self.scope}/conv{3 if self.bottleneck else 2}/weights", self.filters

    @property
    def tap_widths(self) -> dict[str, int]:
        """The last convolution's output, which a decoder may read, and its channels."""
        return {self.output_weights[0].removesuffix("/weights"): self.filters}


@dataclasses.dataclass(frozen=True)
class NasCell:
    """A cell of a searched network.

    `operations` are its five combinations; `level` is log2(stride) - 2; `enlarge` resizes the running tensor from d to
    2 d - 1 pixels before the cell; `depth` is the share of all cells up to this one, by which drop path grows.
    """

    scope: str
    end_point: str
    filters: int
    level: int
    operations: tuple[Combination, ...]
    stride: int = 1
    enlarge: bool = False
    depth: float = 1.0

    @property
    def output_weights(self) -> tuple[str, int]:
        """The first kernel, whose shape shows the width of each of the five combinations, and that width."""
        return f"{self.scope}/1x1/weights", self.filters

    @property
    def tap_widths(self) -> dict[str, int]:
        """The output, which a decoder may read, and its channels: the five combinations are concatenated."""
        return {self.end_point: len(self.operations) * self.filters}


@dataclasses.dataclass(frozen=True)
class Activation:
    """A lone activation."""

    activation: ActivationName = "relu"
    stride: int = 1


Unit = Conv | MaxPool | SeparableUnit | XceptionUnit | InvertedResidual | ResNetUnit | NasCell | Activation


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A backbone variant.

    Attributes:
      name: the release's model_variant.
      scope: its TF1 variable scope.
      units: the rows for given options, widths final, strides nominal (as if the output stride were the largest).
      batch_norm: constants of the backbone's batch norms; None: its convolutions have biases instead.
      preprocessing: "scale" maps 0..255 to [-1, 1], "unit" to [0, 1]; "subtract_mean" subtracts `mean` (RGB).
      pad_pixel: RGB the data pipeline pads images with.
      decoder_end_points: stride -> end point that the decoder reads.
      initializer: "truncated_normal" (std 0.09), "resnet" or "nas" (see deeplab_tf/network/layers.py).
      bare_end_points: the end points of its convolutions have no scope before them (MobileNets and NAS).
      bounded: its activations follow use_bounded_activation.
      scaled_by: the fields of ModelConfig that scale its channels.
      takes: other fields of ModelConfig that only it takes.
      nominal_output_stride: the output stride of the rows without any atrous convolution.
      letterbox: side in pixels of the grey square that its public models fit photographs into; None: they do not.
      smallest_output_stride: the smallest output stride that the rows can be built at.
      usual_output_stride: that of its released segmentation networks, where all have the same; None: the papers'.
      gate_is_q_sigmoid: so is the gate of its released segmentation networks, where they have one.
      multi_grid_length: number of unit rates `multi_grid` takes; 0: the variant ignores it.
      strides_from_rows: the rows already realise the output stride (NAS), nothing is converted to rates.
      cascades: it takes `cascade_blocks`, each of which doubles the nominal output stride of 32.
      fully_connected: without ASPP of the v3 kind it has fc6 and fc7, a pair of convolutions for each atrous rate.
      multi_scale_end_points: what DeepLab-v1's MSc reads beside the image; each has twice the stride of the one before.
    """

    name: str
    scope: str
    units: Callable[[BackboneOptions], tuple[Unit, ...]]
    batch_norm: BatchNorm | None
    preprocessing: Preprocessing = "scale"
    mean: tuple[float, ...] = RGB_MEAN
    pad_pixel: Pixel = SCALE_PIXEL
    decoder_end_points: dict[int, str] = dataclasses.field(default_factory=dict[int, str])
    initializer: Initializer = "truncated_normal"
    bare_end_points: bool = False
    bounded: bool = False
    scaled_by: tuple[ScalingField, ...] = ()
    takes: tuple[str, ...] = ()
    nominal_output_stride: int = 32
    letterbox: int | None = None
    smallest_output_stride: int = 1
    usual_output_stride: int | None = None
    gate_is_q_sigmoid: bool = False
    multi_grid_length: int = 0
    strides_from_rows: bool = False
    cascades: bool = False
    fully_connected: bool = False
    multi_scale_end_points: tuple[str, ...] = ()

    def on_bands(self, mean: tuple[float, ...]) -> "Architecture":
        """Returns the rows for images of as many bands as `mean` has, which is subtracted where a mean is."""
        return self if len(mean) == len(self.mean) else dataclasses.replace(self, mean=mean)

    def largest_output_stride(self, config: BackboneOptions) -> int:
        """Returns the output stride without any atrous convolution."""
        return self.nominal_output_stride * 2 ** (config.cascade_blocks if self.cascades else 0)

    def decoder_widths(self, config: BackboneOptions) -> dict[int, int]:
        """Returns stride -> channels of the end points that the decoder reads."""
        widths: dict[str, int] = {}
        for row in self.units(config):
            widths.update(getattr(row, "tap_widths", {}))
        taps = {stride: name.removeprefix(f"{self.scope}/") for stride, name in self.decoder_end_points.items()}
        return {stride: widths[name] for stride, name in taps.items()}


def strides_and_rates(strides: Sequence[int], output_stride: int | None) -> list[tuple[int, int]]:
    """Returns (stride, rate) of each unit so that the whole has `output_stride` (None: the nominal one).

    The unit whose stride is removed still runs at the present rate; the units after it run at the rate multiplied by
    that stride (release: core/xception.py, resnet_v1_beta.py and slim's mobilenet.py).

    Raises:
      DeepLabError: the strides cannot give `output_stride`.
    """
    result: list[tuple[int, int]] = []
    current = 1
    rate = 1
    for stride in strides:
        if current == output_stride:
            result.append((1, rate))
            rate *= stride
        else:
            result.append((stride, 1))
            current *= stride
    if output_stride not in (None, current):
        raise DeepLabError(f"output_stride={output_stride}: strides {list(strides)} reach {current} instead")
    return result


def make_divisible(value: float, divisor: int, smallest: int | None = None) -> int:
    """Returns `value` rounded to a multiple of `divisor`, at least `smallest`, and not below 0.9 of `value`.

    Source: slim's mobilenet conv_blocks.
    """
    rounded = max(divisor if smallest is None else smallest, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded
