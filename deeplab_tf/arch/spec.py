"""What an architecture is: its rows, its preprocessing, and the one place where a stride becomes a rate."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from deeplab_tf.arch.units import BatchNorm, Unit
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

Preprocessing = Literal["scale", "subtract_mean", "unit"]
ScalingField = Literal["depth_multiplier", "divisible_by"]
Initializer = Literal["truncated_normal", "resnet", "nas"]


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


# Fields of ModelConfig that ResNets take: their units may have other norms than batch norms (resnet_v1_beta.py).
NORM_OPTIONS = ("normalization_method", "group_norm_groups", "use_weight_standardization")


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The end of an ImageNet network: a convolution, the mean of the map, and a 1x1 convolution with bias.

    Attributes:
      logits: scope of the last convolution, whose filters are the classes.
      tail: scope of a 1x1 convolution with batch norm and ReLU6 before the mean; None: there is none.
      side: pixels of the sides of the pictures that its public weights were trained on.
    """

    logits: str = "logits"
    tail: str | None = None
    side: int = 224


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
      classifier: the end of its ImageNet network; None: none is known here.
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
    classifier: Classifier | None = None

    @property
    def classifier_scopes(self) -> tuple[str, ...]:
        """The scopes below its own that an ImageNet classifier has and a backbone has not."""
        if self.fully_connected:
            return ("logits", "fc6", "fc7", "fc8")
        if self.classifier is None:
            return ("logits",)
        return (self.classifier.logits, *([self.classifier.tail] if self.classifier.tail else []))

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
