"""What follows the backbone: image pooling, ASPP, dense prediction cell, decoder, logits (release: model.py).

And what DeepLab-v1 and v2 have instead: fc6 and fc7, multi-scale features (arXiv 1412.7062, 1606.00915).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import keras

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.arch.dense_prediction_cell import Branch
from deeplab_tf.arch.spec import Architecture
from deeplab_tf.arch.units import HEAD_BATCH_NORM
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.graph import POINTWISE, After, Graph, Maps, Window
from deeplab_tf.network.layers import Dropout
from deeplab_tf.network.lite_arithmetic import LiteRound
from deeplab_tf.ops.resizing import scale_dimension

_DROPOUT = 0.1
_FC_DROPOUT = 0.5
_MULTI_SCALE_FILTERS = 128
_SQUARE = Window(3)


@dataclasses.dataclass
class _Head:
    """What the parts of one head share. `images` gives the sizes where the crop is not fixed."""

    graph: Graph
    config: ModelConfig
    images: Maps

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.config.model_variant]

    @property
    def relu(self) -> str:
        return "relu6" if self.config.use_bounded_activation else "relu"

    def after(self, activation: str | None = None) -> After:
        """What follows a convolution of the head, by default its ReLU."""
        return After(norm=HEAD_BATCH_NORM, activation=activation or self.relu)

    def conv(self, x: Maps, scope: str, filters: int, window: Window = POINTWISE, after: After | None = None) -> Maps:
        return self.graph.conv(x, scope, filters, window, after or self.after())

    def separable(
        self, x: Maps, scope: str, filters: int, window: Window = _SQUARE, after: After | None = None
    ) -> Maps:
        return self.graph.split_separable(x, scope, filters, window, after or self.after())

    def resize_to_stride(self, x: Maps, scope: str, scale: float) -> Maps:
        """Resizes to the input's size times `scale`."""
        if self.config.crop_size:
            return self.graph.resize(x, scope, size=[scale_dimension(d, scale) for d in self.config.crop_size])
        return self.graph.resize(x, scope, like=self.images, scale=scale)

    def average_pool(self, x: Maps, scope: str, scales: tuple[float, float], strides: tuple[int, int]) -> Maps:
        """Average pooling, VALID, over a window of the pooling crop times `scales`."""
        crop = self.config.image_pooling_crop_size or self.config.crop_size
        assert crop is not None
        window = (scale_dimension(crop[0], scales[0]), scale_dimension(crop[1], scales[1]))
        if any(size is not None and size < side for size, side in zip(x.shape[1:3], window, strict=True)):
            raise DeepLabError(
                f"image_pooling_crop_size or crop_size {crop}: the pooling window {window} exceeds the feature map "
                f"{tuple(x.shape[1:3])}; expected a crop of k * 32 + 1, no larger than the input"
            )
        options = {"pool_size": window, "strides": strides, "padding": "valid"}
        return self.graph.op(keras.layers.AveragePooling2D, f"{scope}/pool", x, **options)


def _image_feature(head: _Head, features: Maps) -> Maps:
    """Returns the pooled image-level feature (or gate), resized back to the feature map."""
    config, scope = head.config, "image_pooling"
    if config.crop_size:
        scale = 1.0 / config.output_stride
        pooled = head.average_pool(features, scope, (scale, scale), config.image_pooling_stride)
    else:
        pooled = head.graph.op(keras.layers.GlobalAveragePooling2D, f"{scope}/pool", features, keepdims=True)
    if head.graph.as_file:  # a runtime rounds the mean; quantised training does not
        pooled = head.graph.fake_quantised(pooled, f"{scope}/pool_quant", LiteRound)
    if config.aspp_with_squeeze_and_excitation:
        after = After(bias=True, activation="q_sigmoid" if config.image_se_uses_qsigmoid else "sigmoid")
    else:
        after = head.after("relu")  # never bounded, unlike the rest of the head
    pooled = head.conv(pooled, scope, config.aspp_convs_filters, after=after)
    if config.crop_size:
        return head.resize_to_stride(pooled, scope, 1.0 / config.output_stride)
    return head.graph.resize(pooled, scope, like=features)


def _check_same_size(branches: Sequence[Maps], config: ModelConfig):
    sizes = {tuple(b.shape[1:3]) for b in branches if None not in b.shape[1:3]}
    if len(sizes) > 1:
        raise DeepLabError(
            f"{config.model_variant} at output_stride={config.output_stride} and crop_size={config.crop_size}: the "
            f"ASPP branches have sizes {sorted(sizes)}; nas_hnasnet always runs at output stride 8, so give 8"
        )


def _aspp(head: _Head, features: Maps) -> Maps:
    """Atrous spatial pyramid pooling: [image pooling,] 1x1, one branch a rate, concatenated and projected."""
    config, branches, gate = head.config, [], None
    depth = config.aspp_convs_filters
    if config.add_image_level_feature:
        pooled = _image_feature(head, features)
        if config.aspp_with_squeeze_and_excitation:
            gate = pooled
        else:
            branches.append(pooled)
    branches.append(head.conv(features, "aspp0", depth))
    for i, rate in enumerate(config.atrous_rates or (), start=1):
        if config.aspp_with_separable_conv:
            branches.append(head.separable(features, f"aspp{i}", depth, Window(3, rate=rate)))
        else:
            branches.append(head.conv(features, f"aspp{i}", depth, Window(3, rate=rate)))
    _check_same_size([*branches, *([gate] if gate is not None else [])], config)
    x = branches[0]
    if len(branches) > 1:
        x = head.graph.op(keras.layers.Concatenate, "aspp/concat", branches)
    if config.aspp_with_concat_projection:
        x = head.conv(x, "concat_projection", depth)
        x = head.graph.op(Dropout, "concat_projection/dropout", x, rate=_DROPOUT)
    if gate is not None:
        if x.shape[-1] != depth:
            raise DeepLabError(
                f"aspp_with_squeeze_and_excitation: the gate has {depth} channels and ASPP {x.shape[-1]}; set "
                "aspp_with_concat_projection, or leave atrous_rates out"
            )
        x = head.graph.op(keras.layers.Multiply, "aspp/gate", [x, gate])
    for n in range(config.aspp_output_convs):
        x = head.conv(x, f"aspp_conv{n}", depth, _SQUARE)
    return x


def _cell_branch(head: _Head, branch: Branch, source: Maps, scope: str) -> Maps:
    depth, stride = 256, head.config.output_stride
    if branch.op == "pyramid_pooling":
        if not head.config.crop_size:
            raise DeepLabError("crop_size: a dense prediction cell with pyramid pooling needs it (its window is fixed)")
        assert branch.grid_size is not None
        rows, columns = branch.grid_size
        pooled = head.average_pool(source, scope, (1.0 / (stride * rows), 1.0 / (stride * columns)), (1, 1))
        pooled = head.conv(pooled, scope, depth, after=head.after("relu"))
        return head.resize_to_stride(pooled, scope, 1.0 / stride)
    if branch.kernel == (1, 1):
        return head.conv(source, scope, depth, after=head.after("relu"))
    assert branch.kernel is not None and branch.rate is not None
    factor = 16 // stride
    window = Window(branch.kernel, rate=(branch.rate[0] * factor, branch.rate[1] * factor))
    return head.separable(source, scope, depth, window, head.after("relu"))


def _dense_prediction_cell(head: _Head, features: Maps) -> Maps:
    # The release gives each scale of an image pyramid its own cell: meta_architecture, meta_architecture_1, ...
    scope = f"meta_architecture_{head.graph.number}" if head.graph.number else "meta_architecture"
    outputs: list[Maps] = []
    for i, branch in enumerate(head.config.dense_prediction_cell_json or ()):
        source = features if branch.input < 0 else outputs[branch.input]
        outputs.append(_cell_branch(head, branch, source, f"{scope}/branch{i}"))
    x = head.graph.op(keras.layers.Concatenate, f"{scope}/concat", outputs)
    x = head.graph.op(Dropout, f"{scope}/dropout", x, rate=_DROPOUT)
    return head.conv(x, f"{scope}/concat_projection", 256, after=head.after("relu"))


def _dropped_conv(head: _Head, x: Maps, scope: str, filters: int, window: Window = POINTWISE) -> Maps:
    """Convolution with bias, ReLU, dropout: a fully connected layer of VGG-16 made a convolution."""
    after = After(bias=True, activation=head.relu)
    x = head.graph.conv(x, scope, filters, window, after, init=head.architecture.initializer)
    return head.graph.op(Dropout, f"{scope}/dropout", x, rate=_FC_DROPOUT)


def _multi_scale_maps(head: _Head, end_points: Mapping[str, Maps]) -> list[Maps]:
    """Returns the image and the first poolings, each through a 3x3 and a 1x1 convolution of 128 filters.

    All are at the output stride (arXiv 1412.7062, section 4.3; the strided 3x3 is its public model's).
    """
    images = head.graph.preprocess(head.images, "multi_scale", head.architecture.on_bands(head.config.mean_pixel))
    taps = {"image": images} | {n.rpartition("/")[2]: end_points[n] for n in head.architecture.multi_scale_end_points}
    maps = []
    for level, (name, x) in enumerate(taps.items()):
        stride = max(1, head.config.output_stride // 2**level)
        scope = f"multi_scale/{name}"
        window = Window(3, stride, explicit_padding=True)
        x = _dropped_conv(head, x, f"{scope}/conv1", _MULTI_SCALE_FILTERS, window)
        maps.append(_dropped_conv(head, x, f"{scope}/conv2", _MULTI_SCALE_FILTERS))
    return maps


def _fully_connected(head: _Head, features: Maps, end_points: Mapping[str, Maps]) -> list[Maps]:
    """Returns fc7 of each atrous rate.

    A lone rate is DeepLab-v1's: pool5 is averaged before fc6, as in its public models, and the multi-scale maps may
    stand beside fc7; several are v2's ASPP, which has neither.
    """
    config, scope = head.config, head.architecture.scope
    rates = config.atrous_rates or ()
    if len(rates) == 1:
        padded = head.graph.pad(features, f"{scope}/pool5a", 3)
        features = head.graph.op(keras.layers.AveragePooling2D, f"{scope}/pool5a", padded, pool_size=3, strides=1)
    branches = []
    for n, rate in enumerate(rates, start=1):
        suffix = f"_{n}" if len(rates) > 1 else ""
        window = Window(config.fc_kernel_size, rate=rate)
        x = _dropped_conv(head, features, f"{scope}/fc6{suffix}", config.fc_filters, window)
        branches.append(_dropped_conv(head, x, f"{scope}/fc7{suffix}", config.fc_filters))
    if config.multi_scale_features:
        maps = [*branches, *_multi_scale_maps(head, end_points)]
        branches = [head.graph.op(keras.layers.Concatenate, "multi_scale/concat", maps)]
    return branches


def _concat_merge(head: _Head, x: Maps, low_level: Maps, suffix: str, after: After) -> Maps:
    filters, window = head.config.decoder_filters, Window(head.config.decoder_kernel_size)
    x = head.graph.op(keras.layers.Concatenate, f"decoder/concat{suffix}", [x, low_level])
    for n in range(head.config.decoder_convs):
        if head.config.decoder_use_separable_conv and not head.config.decoder_output_is_logits:
            x = head.separable(x, f"decoder/decoder_conv{n}{suffix}", filters, window)
        else:
            scope = f"decoder/decoder_conv0{suffix}/decoder_conv0{suffix}_{n + 1}"
            x = head.conv(x, scope, filters, window, after)
    return x


def _sum_merge(head: _Head, x: Maps, low_level: Maps, suffix: str, after: After) -> Maps:
    filters, window = head.config.decoder_filters, Window(head.config.decoder_kernel_size)
    if head.config.decoder_use_separable_conv and not head.config.decoder_output_is_logits:
        x = head.separable(x, f"decoder/decoder_split_sep_conv0{suffix}", filters, window)
    else:
        window = POINTWISE if head.config.decoder_output_is_logits else window
        x = head.conv(x, f"decoder/decoder_conv0{suffix}", filters, window, after)
    return head.graph.add([x, low_level], f"decoder/add{suffix}")


def _decoder(head: _Head, x: Maps, end_points: Mapping[str, Maps]) -> Maps:
    """Refines `x` with a low-level end point at each decoder stride (arXiv 1802.02611, section 3.1)."""
    config = head.config
    taps = head.architecture.decoder_end_points
    after = After(bias=True) if config.decoder_output_is_logits else head.after()
    merge, projected = _concat_merge, config.decoder_projection_filters
    if config.decoder_use_sum_merge:
        merge, projected = _sum_merge, config.decoder_filters
    for stage, stride in enumerate(config.decoder_output_stride or ()):
        suffix = f"_{stage}" if stage else ""
        scope = f"decoder/feature_projection0{suffix}"
        low_level = head.conv(end_points[taps[stride]], scope, projected, after=after)
        low_level = head.resize_to_stride(low_level, scope, 1.0 / stride)
        x = head.resize_to_stride(x, f"decoder/features{suffix}", 1.0 / stride)
        x = merge(head, x, low_level, suffix, after)
    return x


def _logits(head: _Head, branches: list[Maps]) -> Maps:
    """Returns a convolution of each branch, their sum where there are several (DeepLab-v2).

    A lone branch of the v2 style may have several atrous rates instead.
    """
    config = head.config
    rates: tuple[int, ...] = (None if config.aspp_with_batch_norm else config.atrous_rates) or (1,)
    branches = branches * len(rates) if len(branches) == 1 else branches
    outputs = [
        head.graph.conv(
            x,
            f"logits/semantic_{i}" if i else "logits/semantic",
            config.num_classes,
            Window(config.logits_kernel_size, rate=rate if config.logits_kernel_size > 1 else 1),
            After(bias=True),
            init=0.01,
        )
        for i, (x, rate) in enumerate(zip(branches, rates, strict=True))
    ]
    return outputs[0] if len(outputs) == 1 else head.graph.add(outputs, "logits/sum")


def head_logits(
    graph: Graph, features: Maps, end_points: Mapping[str, Maps], images: Maps, config: ModelConfig
) -> Maps:
    """Adds the head to `graph`.

    Args:
      graph: where the layers go.
      features: the backbone's last maps, from `backbone.backbone`.
      end_points: the maps that it taps, by name.
      images: Keras tensor [b, h, w, 3] that the backbone read.
      config: the options; crop_size is the size of `images` or None.

    Returns:
      Logits [b, h', w', num_classes] at the output stride, or at the last decoder stride.

    Raises:
      DeepLabError: sizes or widths that do not fit together.
    """
    head = _Head(graph, config, images)
    x = features
    if config.aspp_with_batch_norm:
        x = _dense_prediction_cell(head, x) if config.dense_prediction_cell_json else _aspp(head, x)
    if config.decoder_output_stride:
        x = _decoder(head, x, end_points)
    if config.decoder_output_is_logits:
        return x
    if head.architecture.fully_connected and not config.aspp_with_batch_norm:
        return _logits(head, _fully_connected(head, x, end_points))
    return _logits(head, [x])
