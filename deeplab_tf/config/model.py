"""ModelConfig: the options of the network. Import it from deeplab_tf.config."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args, get_type_hints

from deeplab_tf.arch import ARCHITECTURES, dense_prediction_cell
from deeplab_tf.arch.spec import NORM_OPTIONS, band_pixel
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.config.fields import Options, option
from deeplab_tf.documents.json_files import JSONError, typed
from deeplab_tf.errors import DeepLabError, unknown_name

MergeMethod = Literal["max", "avg"]
MERGE_METHODS: tuple[MergeMethod, ...] = get_args(MergeMethod)
Normalization = Literal["batch", "group", "none"]
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)
_ROW_FIELDS = ("smallest_width", "expand_ratio", "expand_first_block", "fixed_padding", *NORM_OPTIONS)
_COUNTS = (
    *("num_classes", "aspp_convs_filters", "nas_stem_output_num_conv_filters", "fc_kernel_size", "fc_filters"),
    *("decoder_filters", "decoder_projection_filters", "decoder_convs", "decoder_kernel_size", "group_norm_groups"),
)

_LARGEST_COUNT = 1 << 15  # the largest vocabulary of classes, ImageNet-21K's, has 21,841


@dataclasses.dataclass(frozen=True)
class ModelConfig(Options, group="network"):
    """The network: every model flag of the release, and after `image_se_uses_qsigmoid` what the papers have beyond it.

    The flags are those of the release's common.py, train.py and export_model.py. Sizes are (height, width) in pixels.
    An `Experiment` sets `num_classes` to its data set's and `crop_size` to its data's.

    >>> rates = (6, 12, 18)
    >>> config = deeplab_tf.ModelConfig("xception_65", atrous_rates=rates, decoder_output_stride=(4,))
    >>> config.at_output_stride(8).atrous_rates
    (12, 24, 36)
    """

    model_variant: str = option("mobilenet_v2", "backbone, for instance xception_65, resnet_v1_101_beta or vgg16")
    num_classes: int = option(21, "number of classes, background included")
    output_stride: int = option(16, "input size over size of the backbone's last feature map: 32, 16, 8 or lower")
    atrous_rates: tuple[int, ...] | None = option(None, "ASPP rates; 6,12,18 at output stride 16, doubled at 8")
    crop_size: tuple[int, int] | None = option(None, "input height,width the graph is built for; unset: any size")
    logits_kernel_size: int = option(1, "kernel of the last convolution; other than 1 only without ASPP", group="head")
    image_pyramid: tuple[float, ...] | None = option(None, "scales the network runs at inside one graph")
    add_image_level_feature: bool = option(True, "add the globally pooled feature to ASPP", group="head")
    image_pooling_crop_size: tuple[int, int] | None = option(
        None, "height,width that sets the pooling window", group="head"
    )
    image_pooling_stride: tuple[int, int] = option(
        (1, 1), "stride of the image pooling, vertical,horizontal", group="head"
    )
    aspp_with_batch_norm: bool = option(
        True, "run ASPP (or the dense prediction cell); false is DeepLab-v2 style", group="head"
    )
    aspp_with_separable_conv: bool = option(True, "separable atrous convolutions in ASPP", group="head")
    multi_grid: tuple[int, ...] | None = option(
        None, "unit rates of the last block (Xception), or of block4 and its copies (ResNet)", group="details"
    )
    depth_multiplier: float = option(1.0, "scales the channels of a MobileNet or of VGG-16", group="details")
    divisible_by: int | None = option(None, "MobileNetV2 channels become a multiple of this", group="details")
    decoder_output_stride: tuple[int, ...] | None = option(
        None, "strides of the decoder, descending; unset: no decoder", group="decoder"
    )
    decoder_use_separable_conv: bool = option(True, "separable convolutions in the decoder", group="decoder")
    merge_method: MergeMethod = option("max", "how an image pyramid's logits are merged: max or avg")
    prediction_with_upsampled_logits: bool = option(True, "upsample logits, then argmax; false: the other way round")
    dense_prediction_cell_json: tuple[dense_prediction_cell.Branch, ...] | None = option(
        None,
        "JSON file of a dense prediction cell, instead of ASPP",
        parse=dense_prediction_cell.parse,
        path=True,
        group="head",
    )
    nas_stem_output_num_conv_filters: int = option(20, "filters of the first NAS cell", group="details")
    nas_use_classification_head: bool = option(
        False, "append the classification head to a NAS backbone", group="details"
    )
    nas_remove_os32_stride: bool = option(False, "no stride on a NAS step to output stride 32", group="details")
    use_bounded_activation: bool = option(
        False, "bound activations to [-6, 6] (Xception, ASPP, decoder)", group="details"
    )
    aspp_with_concat_projection: bool = option(
        True, "project the concatenated ASPP branches with a 1x1 convolution", group="head"
    )
    aspp_with_squeeze_and_excitation: bool = option(
        False, "multiply ASPP by a gate from the pooled feature", group="head"
    )
    aspp_convs_filters: int = option(256, "filters of the ASPP convolutions", group="head")
    decoder_use_sum_merge: bool = option(False, "the decoder adds instead of concatenating", group="decoder")
    decoder_filters: int = option(256, "filters of the decoder convolutions", group="decoder")
    decoder_output_is_logits: bool = option(False, "the decoder's output is the logits", group="decoder")
    image_se_uses_qsigmoid: bool = option(
        False, "the squeeze-and-excitation gate is relu6(x + 3) * 0.16667", group="head"
    )
    fc_kernel_size: int = option(
        3, "kernel of VGG-16's fc6: 3, or 4 or 7 (DeepLab-v1's other fields of view)", group="details"
    )
    fc_filters: int = option(1024, "filters of VGG-16's fc6 and fc7; 4096 with the kernels 4 and 7", group="details")
    multi_scale_features: bool = option(
        False, "DeepLab-v1's MSc: the image and four poolings join VGG-16's fc7", group="details"
    )
    cascade_blocks: int = option(
        0, "copies of a ResNet's block4 behind it: block5 to block7 in DeepLab-v3's cascade", group="details"
    )
    aspp_output_convs: int = option(
        0,
        "3x3 convolutions of aspp_convs_filters behind ASPP, as torchvision has one; 0: none, as the release",
        group="head",
    )
    decoder_projection_filters: int = option(
        48, "filters of the 1x1 convolution on the decoder's low-level features", group="decoder"
    )
    decoder_convs: int = option(2, "convolutions of each decoder stage", group="decoder")
    decoder_kernel_size: int = option(3, "kernel of the decoder's convolutions", group="decoder")
    quantize_delay_step: int = option(
        -1,
        "quantised training: the step from which on, and afterwards always, kernels and maps are rounded to what eight "
        "bits hold; -1: never",
    )
    quantize_as_file: bool = option(
        False,
        "with quantize_delay_step, outside training: calculate in integers as LiteRT does with the 8-bit file that the "
        "weights were read from, to the same bits; the logits have the images' size, for the file rounds those too",
    )
    align_corners: bool = option(
        True, "resize maps with aligned corners, as the release; false: without, as some exported files of it do"
    )
    input_channels: int = option(3, "bands of the photographs; those of the data set in training")
    extra_band_means: tuple[float, ...] | None = option(
        None,
        "mean of each band beyond the first three on the scale 0..255, those of the data set in training; unset: "
        "127.5 each",
    )

    smallest_width: int | None = option(
        None,
        "MobileNetV2 channels are rounded as Hugging Face's: to whole numbers, then to a multiple of divisible_by, "
        "expansions too, and are at least this; unset: the release's rule",
        group="details",
    )
    expand_ratio: float = option(
        6.0, "channels inside MobileNetV2's inverted residuals over those that they read", group="details"
    )
    expand_first_block: bool = option(
        False, "MobileNetV2's first inverted residual has an expansion too, of ratio 1", group="details"
    )
    fixed_padding: bool = option(
        False,
        "MobileNetV2's strided convolutions pad alike on all sides, as PyTorch's; false: TensorFlow's SAME",
        group="details",
    )
    batch_norm_epsilon: float | None = option(
        None, "epsilon of the backbone's batch norms; unset: the release's", group="details"
    )

    normalization_method: Normalization = option(
        "batch", "of a ResNet's backbone: batch, group, or none, whose convolutions have biases", group="details"
    )
    group_norm_groups: int = option(32, "groups of channels of --normalization_method=group", group="details")
    use_weight_standardization: bool = option(
        False, "standardise the kernels of a ResNet's backbone in each output channel", group="details"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_variant not in ARCHITECTURES:
            raise unknown_name("model_variant", self.model_variant, ARCHITECTURES)
        self._require_sizes()
        self._require_rows()
        self._require_bands()
        self._require_strides()
        self._require_head()

    def _require_sizes(self) -> None:
        self._require_at_least(1, *_COUNTS)
        for name in _COUNTS:  # a file that says more would take all memory before its weights are looked at
            self._require(name, getattr(self, name) <= _LARGEST_COUNT, f"expected at most {_LARGEST_COUNT}")
        self._require("cascade_blocks", self.cascade_blocks >= 0, "expected 0 or more")
        self._require("aspp_output_convs", self.aspp_output_convs >= 0, "expected 0 or more")
        self._require_size("crop_size", "image_pooling_crop_size", "image_pooling_stride")
        self._require("depth_multiplier", 0 < self.depth_multiplier <= 16, "expected a number above 0, up to 16")
        self._require("merge_method", self.merge_method in MERGE_METHODS, "expected max or avg")
        scales = self.image_pyramid
        self._require("image_pyramid", scales is None or min(scales) > 0, "expected scales above 0")
        expected = "expected -1 with an image pyramid of several scales, which share no range of values"
        self._require("quantize_delay_step", not self.quantized or len(scales or ()) < 2, expected)

    def _require_rows(self) -> None:
        architecture = ARCHITECTURES[self.model_variant]
        self._require("smallest_width", self.smallest_width is None or self.smallest_width >= 1, "expected 1 or more")
        self._require("expand_ratio", self.expand_ratio > 0, "expected a number above 0")
        for name in _ROW_FIELDS:
            plain = getattr(self, name) == _DEFAULTS[name]
            self._require(name, plain or name in architecture.takes, f"{self.model_variant} does not take it")
        known = self.normalization_method in NORMALIZATIONS
        self._require("normalization_method", known, f"expected {', '.join(NORMALIZATIONS)}")
        plain = self.normalization_method == "batch" and not self.use_weight_standardization
        expected = "expected -1: only convolutions with batch norms can be trained quantised"
        self._require("quantize_delay_step", plain or not self.quantized, expected)
        epsilon = self.batch_norm_epsilon
        norms = architecture.batch_norm is not None and self.normalization_method == "batch"
        self._require("batch_norm_epsilon", epsilon is None or norms, f"{self.model_variant} has no batch norms")
        expected = "expected 1e-5 to 1 (TensorFlow's fused batch norm adds no less)"
        self._require("batch_norm_epsilon", epsilon is None or 1e-5 <= epsilon <= 1, expected)

    def _require_bands(self) -> None:
        self._require_at_least(1, "input_channels")
        means = self.extra_band_means
        extra = max(0, self.input_channels - 3)
        good = means is None or (len(means) == extra and all(0 <= mean <= 255 for mean in means))
        expected = f"expected {extra} numbers of 0..255, one for each band of input_channels={self.input_channels} "
        self._require("extra_band_means", good, f"{expected}beyond the first three")

    def _require_strides(self) -> None:
        architecture = ARCHITECTURES[self.model_variant]
        expected = f"{self.model_variant} has no block to copy; expected a ResNet, or 0"
        self._require("cascade_blocks", architecture.cascades or not self.cascade_blocks, expected)
        smallest = architecture.smallest_output_stride
        largest = architecture.largest_output_stride(self)
        stride = self.output_stride
        good = smallest <= stride <= largest and stride & (stride - 1) == 0
        self._require("output_stride", good, f"{self.model_variant} takes a power of two from {smallest} to {largest}")
        rates = self.atrous_rates
        self._require("atrous_rates", rates is None or min(rates) >= 1, "expected rates of at least 1")
        grid = self.multi_grid
        length = architecture.multi_grid_length
        if grid is not None and length:
            self._require("multi_grid", len(grid) == length, f"{self.model_variant} takes {length} unit rates")
        strides = self.decoder_output_stride or ()
        ordered = all(a > b for a, b in zip(strides, strides[1:], strict=False))
        self._require("decoder_output_stride", ordered, "expected strides in descending order, for instance 8,4")
        for stride in strides:
            known = sorted(architecture.decoder_end_points)
            expected = f"{self.model_variant} has decoder inputs at strides {known}" if known else "it has no decoder"
            self._require("decoder_output_stride", stride in known, expected)

    def _require_head(self) -> None:
        fully_connected = ARCHITECTURES[self.model_variant].fully_connected and not self.aspp_with_batch_norm
        v2_style = not self.aspp_with_batch_norm and self.atrous_rates and not fully_connected
        expected = "expected 1, unless aspp_with_batch_norm is false and atrous_rates are given (not with VGG-16's fc7)"
        self._require("logits_kernel_size", self.logits_kernel_size == 1 or bool(v2_style), expected)
        if fully_connected:
            expected = "expected the rates of fc6: 12 (LargeFOV), 4 (7x7), 4 or 8 (4x4), 6,12,18,24 (ASPP-L)"
            self._require("atrous_rates", bool(self.atrous_rates), expected)
        alone = fully_connected and len(self.atrous_rates or ()) == 1
        expected = "belongs to DeepLab-v1: VGG-16, aspp_with_batch_norm=False and one rate in atrous_rates"
        self._require("multi_scale_features", not self.multi_scale_features or alone, expected)
        if self.decoder_output_is_logits:
            self._require(
                "decoder_output_stride", bool(self.decoder_output_stride), "decoder_output_is_logits needs it"
            )
            expected = f"must equal num_classes={self.num_classes} when decoder_output_is_logits"
            self._require("decoder_filters", self.decoder_filters == self.num_classes, expected)
        if self.dense_prediction_cell_json and self.aspp_with_batch_norm:
            expected = (
                "a dense prediction cell works at output stride 16 or lower (its rates are multiplied by 16 // stride)"
            )
            self._require("output_stride", self.output_stride <= 16, expected)

    @property
    def pad_pixel(self) -> tuple[float, ...]:
        """What fills the padding of images, one value of 0..255 a band: the backbone's for RGB, then the means."""
        pixel = ARCHITECTURES[self.model_variant].pad_pixel
        return band_pixel(pixel, self.input_channels, self.extra_band_means)

    @property
    def mean_pixel(self) -> tuple[float, ...]:
        """What a backbone that subtracts a mean subtracts, one value of 0..255 a band."""
        return band_pixel(ARCHITECTURES[self.model_variant].mean, self.input_channels, self.extra_band_means)

    def on_bands(self, image: ImageFacts | None) -> "ModelConfig":
        """Returns the configuration for the photographs of a data set; None: 8-bit RGB."""
        channels, means = (3, None) if image is None else (image.channels, image.mean[3:] or None)
        if (channels, means) == (self.input_channels, self.extra_band_means):
            return self
        return dataclasses.replace(self, input_channels=channels, extra_band_means=means)

    @property
    def quantized(self) -> bool:
        """Whether kernels and maps are rounded to what eight bits hold (network/fake_quantization.py)."""
        return self.quantize_delay_step >= 0

    def at_output_stride(self, output_stride: int) -> "ModelConfig":
        """Returns the configuration at another output stride, with ASPP rates that reach as far.

        6,12,18 at 16 are 12,24,36 at 8 (arXiv 1706.05587, section 3.3). The release never does this by itself; the
        commands that do it say so.
        """
        rates = self.atrous_rates
        if rates is not None:
            rates = tuple(max(1, rate * self.output_stride // output_stride) for rate in rates)
        return dataclasses.replace(self, output_stride=output_stride, atrous_rates=rates)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields that differ from the defaults, and the variant, as JSON types."""
        changed = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        changed = {k: v for k, v in changed.items() if k == "model_variant" or v != _DEFAULTS[k]}
        if self.dense_prediction_cell_json:
            changed["dense_prediction_cell_json"] = [b.to_json() for b in self.dense_prediction_cell_json]
        return {name: _as_json(value) for name, value in changed.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], *, source: str = "deeplab.json") -> "ModelConfig":
        """Returns the configuration of `to_json`; an unknown field is an error that names `source`."""
        kinds = get_type_hints(cls)
        try:
            given = typed(values, dict[str, Any])
        except JSONError as error:
            raise DeepLabError(f"{source}: the model's options: {error}") from None
        for name, value in given.items():
            if name not in _DEFAULTS:
                raise unknown_name(f"model option in {source}", name, _DEFAULTS)
            try:
                if name != "dense_prediction_cell_json":  # the field itself looks into it
                    typed(value, kinds[name])
            except JSONError as error:
                raise DeepLabError(f"{source}: {name}={value!r}: {error}") from None
        return cls(**given)


def _as_json(value: Any) -> Any:
    return list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value


_DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(ModelConfig)}

# The fields that may differ between the model as it was trained and as it is run.
INFERENCE_FIELDS = (
    "output_stride",
    "atrous_rates",
    "crop_size",
    "image_pyramid",
    "merge_method",
    "image_pooling_crop_size",
    "image_pooling_stride",
    "prediction_with_upsampled_logits",
    "quantize_delay_step",
)
