"""The rows (units) that backbones are made of."""

import dataclasses
from typing import Literal

ActivationName = Literal["relu", "relu6", "hard_swish"]
Skip = Literal["conv", "sum", "rectified_sum", "none"]
# What a NAS cell adds up: two pairs of (number of the state, operation).
Combination = tuple[tuple[int, str], tuple[int, str]]


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """Constants of a batch normalisation: decay of the moving averages, and epsilon."""

    decay: float
    epsilon: float


@dataclasses.dataclass(frozen=True)
class GroupNorm:
    """Constants of a group normalisation: the number of groups, and epsilon (slim's)."""

    groups: int
    epsilon: float = 1e-6


Norm = BatchNorm | GroupNorm
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
