"""The interpreter: turns the rows of an architecture into Keras layers and names the tensors that others tap."""

import dataclasses
from collections.abc import Callable

import keras

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.arch.spec import Architecture, strides_and_rates
from deeplab_tf.arch.units import (
    Activation,
    Conv,
    GroupNorm,
    InvertedResidual,
    MaxPool,
    NasCell,
    Norm,
    ResNetUnit,
    SeparableUnit,
    XceptionUnit,
)
from deeplab_tf.config import ModelConfig
from deeplab_tf.network.graph import POINTWISE, After, Graph, Maps, Window
from deeplab_tf.network.layers import DropPath
from deeplab_tf.network.lite_arithmetic import LiteRound


@dataclasses.dataclass
class _Tower:
    """What the units of one backbone share.

    Attributes:
      graph: where the layers go.
      architecture: the backbone.
      norm_constants: of what follows its convolutions; None: a bias.
      bounded: whether activations are bounded.
      end_points: the maps that are tapped so far, by name.
      history: outputs of the NAS stem and cells so far.
    """

    graph: Graph
    architecture: Architecture
    norm_constants: Norm | None
    bounded: bool
    end_points: dict[str, Maps] = dataclasses.field(default_factory=dict)
    history: list[Maps] = dataclasses.field(default_factory=list)

    @property
    def relu(self) -> str:
        return "relu6" if self.bounded else "relu"

    def scope(self, name: str) -> str:
        return f"{self.architecture.scope}/{name}"

    def tap(self, name: str, x: Maps) -> Maps:
        self.end_points[name] = x
        return x

    def after(self, activation: str | None) -> After:
        """What follows the convolutions of this architecture: its norm, or where it has none a bias."""
        return After(norm=self.norm_constants, bias=self.norm_constants is None, activation=activation)

    def conv(self, x: Maps, scope: str, filters: int, window: Window, after: After) -> Maps:
        return self.graph.conv(x, scope, filters, window, after, init=self.architecture.initializer)

    def depthwise(self, x: Maps, scope: str, window: Window, activation: str | None) -> Maps:
        after = After(norm=self.norm_constants, activation=activation)
        return self.graph.depthwise(x, scope, window, after)

    def norm(self, x: Maps, scope: str) -> Maps:
        assert self.norm_constants is not None
        return self.graph.norm(x, scope, self.norm_constants)


def _conv(tower: _Tower, x: Maps, row: Conv, stride: int, rate: int) -> Maps:
    scope = tower.scope(row.scope)
    activation = tower.relu if row.activation == "relu" else row.activation
    window = Window(row.kernel, stride, rate * row.rate if row.kernel > 1 else 1, row.explicit_padding)
    if row.norm_scope:
        x = tower.conv(x, scope, row.filters, window, After())
        x = tower.norm(x, tower.scope(row.norm_scope))
        if row.keep_for_cells:
            tower.history.append(x)
        x = tower.graph.activation(x, scope, activation)
    else:
        x = tower.conv(x, scope, row.filters, window, tower.after(activation))
    if row.end_point:
        bare = tower.architecture.bare_end_points
        tower.tap(row.end_point if bare else tower.scope(row.end_point), x)
    return x


def _max_pool(tower: _Tower, x: Maps, row: MaxPool, stride: int, rate: int) -> Maps:
    del rate
    scope, padding = tower.scope(row.scope), "same"
    if row.explicit_padding:
        # The map is rectified, so that zeros never win against a pixel.
        x, padding = tower.graph.pad(x, scope, 3), "valid"
    x = tower.graph.op(keras.layers.MaxPooling2D, scope, x, pool_size=3, strides=stride, padding=padding)
    return tower.tap(tower.scope(row.end_point), x) if row.end_point else x


def _activation(tower: _Tower, x: Maps, row: Activation, stride: int, rate: int) -> Maps:
    del stride, rate
    return tower.graph.activation(x, tower.architecture.scope, row.activation)


def _separable_unit(tower: _Tower, x: Maps, row: SeparableUnit, stride: int, rate: int) -> Maps:
    depthwise, pointwise = row.scopes
    x = tower.depthwise(x, tower.scope(depthwise), Window(3, stride, rate), row.activation)
    tower.tap(depthwise, x)
    x = tower.conv(x, tower.scope(pointwise), row.filters, POINTWISE, tower.after(row.activation))
    return tower.tap(pointwise, x)


def _xception_separable(
    tower: _Tower, x: Maps, scope: str, filters: int, window: Window, *, activation_inside: bool
) -> Maps:
    if not activation_inside:
        x = tower.graph.activation(x, scope, tower.relu)
    after = tower.relu if activation_inside else "bound" if tower.bounded else None
    x = tower.tap(f"{scope}_depthwise", tower.depthwise(x, f"{scope}_depthwise", window, after))
    x = tower.conv(x, f"{scope}_pointwise", filters, POINTWISE, tower.after(after))
    return tower.tap(f"{scope}_pointwise", x)


def _xception_unit(tower: _Tower, x: Maps, row: XceptionUnit, stride: int, rate: int) -> Maps:
    scope, graph = tower.scope(row.scope), tower.graph
    residual = x
    for i, filters in enumerate(row.filters):
        window = Window(3, stride if i == 2 else 1, rate * row.rates[i], explicit_padding=not tower.bounded)
        name = f"{scope}/separable_conv{i + 1}"
        residual = _xception_separable(tower, residual, name, filters, window, activation_inside=row.activation_inside)
    if row.skip == "conv":
        x = tower.conv(x, f"{scope}/shortcut", row.filters[-1], Window(1, stride), tower.after(None))
        tower.tap(f"{scope}/shortcut", x)
    if row.skip == "rectified_sum":
        x = graph.activation(x, f"{scope}/shortcut", tower.relu)
    if row.skip != "none":
        if tower.bounded:
            residual = graph.activation(residual, f"{scope}/residual", "bound")
            x = graph.activation(x, f"{scope}/shortcut_or_input", "bound")
        residual = graph.add([residual, x], f"{scope}/add", "relu6" if tower.bounded else None)
    tower.tap(scope, residual)
    if row.ends_block:
        tower.tap(tower.scope(row.ends_block), residual)
    return residual


def _squeeze_excite(tower: _Tower, x: Maps, scope: str, width: int) -> Maps:
    pooled = tower.graph.op(keras.layers.GlobalAveragePooling2D, f"{scope}/mean", x, keepdims=True)
    # Unlike that of a pooling window, the mean of the whole map has a range of its own.
    pooled = tower.graph.fake_quantised(pooled, f"{scope}/mean_quant", LiteRound)
    gate = tower.conv(pooled, f"{scope}/Conv", width, POINTWISE, After(bias=True, activation="relu"))
    channels = x.shape[-1]
    assert channels is not None
    gate = tower.conv(gate, f"{scope}/Conv_1", channels, POINTWISE, After(bias=True, activation="q_sigmoid"))
    return tower.graph.op(keras.layers.Multiply, f"{scope}/multiply", [x, gate])


def _inverted_residual(tower: _Tower, x: Maps, row: InvertedResidual, stride: int, rate: int) -> Maps:
    scope, shortcut = tower.scope(row.scope), x
    window = Window(row.kernel, stride, rate, row.explicit_padding)
    if row.expanded > row.inputs or row.always_expands:
        # A fused block's one convolution carries the kernel, the stride and the rate.
        expand = window if row.fused else POINTWISE
        x = tower.conv(x, f"{scope}/expand", row.expanded, expand, tower.after(row.activation))
        tower.tap(f"{row.end_point}/expansion_output", x)
    if not row.fused:
        x = tower.depthwise(x, f"{scope}/depthwise", window, row.activation)
        tower.tap(f"{row.end_point}/depthwise_output", x)
    if row.squeeze:
        x = _squeeze_excite(tower, x, f"{scope}/squeeze_excite", row.squeeze)
    x = tower.conv(x, f"{scope}/project", row.filters, POINTWISE, tower.after(None))
    if row.residual and stride == 1 and shortcut.shape[-1] == row.filters:
        x = tower.graph.add([x, shortcut], f"{scope}/add")
    tower.tap(f"{row.end_point}/output", x)
    return tower.tap(row.end_point, x)


def _resnet_shortcut(tower: _Tower, x: Maps, row: ResNetUnit, stride: int) -> Maps:
    scope = f"{tower.scope(row.scope)}/shortcut"
    if x.shape[-1] != row.filters:
        return tower.tap(scope, tower.conv(x, scope, row.filters, Window(1, stride), tower.after(None)))
    if stride == 1:
        return x
    return tower.graph.op(keras.layers.MaxPooling2D, scope, x, pool_size=1, strides=stride, padding="same")


def _resnet_unit(tower: _Tower, x: Maps, row: ResNetUnit, stride: int, rate: int) -> Maps:
    scope = tower.scope(row.scope)
    shortcut = _resnet_shortcut(tower, x, row, stride)
    rate *= row.rate
    strided = Window(3, stride, rate, explicit_padding=True)
    if row.bottleneck:
        convs = (
            (row.bottleneck, POINTWISE, "relu"),
            (row.bottleneck, strided, "relu"),
            (row.filters, POINTWISE, None),
        )
    else:
        convs = ((row.filters, Window(3, rate=rate), "relu"), (row.filters, strided, None))
    for n, (filters, window, activation) in enumerate(convs, start=1):
        x = tower.conv(x, f"{scope}/conv{n}", filters, window, tower.after(activation))
        tower.tap(f"{scope}/conv{n}", x)
    x = tower.tap(scope, tower.graph.add([shortcut, x], f"{scope}/add", "relu"))
    return tower.tap(tower.scope(row.ends_block), x) if row.ends_block else x


def _nas_projection(tower: _Tower, x: Maps, scope: str, norm_scope: str, filters: int, stride: int = 1) -> Maps:
    x = tower.graph.activation(x, scope, "relu")
    x = tower.conv(x, scope, filters, Window(1, stride), After())
    return tower.norm(x, norm_scope)


def _nas_convolution(tower: _Tower, x: Maps, scope: str, kind: str, filters: int, stride: int) -> Maps:
    graph, (operation, size) = tower.graph, kind.split("_")
    kernel = int(size[0])
    if operation == "separable":
        for n, step in ((1, stride), (2, 1)):
            name = f"{scope}/separable_{size}_{n}"
            window = Window(kernel, step, explicit_padding=True)
            x = graph.separable(graph.activation(x, name, "relu"), name, filters, window)
            x = tower.norm(x, f"{scope}/bn_sep_{size}_{n}")
        return x
    name = f"{scope}/atrous_{size}"
    x = graph.activation(x, name, "relu")
    if stride > 1:
        x = graph.resize(x, name, like=x, scale=0.5)
    x = tower.conv(x, name, filters, Window(kernel, rate=1 if stride > 1 else 2), After())
    return tower.norm(x, f"{scope}/bn_atr_{size}")


def _nas_operation(tower: _Tower, x: Maps, scope: str, kind: str, filters: int, stride: int) -> Maps:
    if kind == "max_3x3":
        options = {"pool_size": 3, "strides": stride, "padding": "same"}
        return tower.graph.op(keras.layers.MaxPooling2D, f"{scope}/{kind}", x, **options)
    if kind == "none":
        return x if stride == 1 else _nas_projection(tower, x, f"{scope}/1x1", f"{scope}/bn_1", filters, stride)
    return _nas_convolution(tower, x, scope, kind, filters, stride)


def _nas_path(tower: _Tower, x: Maps, scope: str, kind: str, row: NasCell, stride: int) -> Maps:
    x = _nas_operation(tower, x, scope, kind, row.filters, stride)
    return x if kind == "none" else tower.graph.op(DropPath, f"{scope}/drop_path", x, depth=row.depth)


def _nas_cell(tower: _Tower, x: Maps, row: NasCell, stride: int, rate: int) -> Maps:
    del rate
    graph, scope = tower.graph, tower.scope(row.scope)
    previous = tower.history[-2]
    if row.enlarge:
        x = graph.resize(x, f"{scope}/enlarge", like=x, scale=2.0)
    if x.shape[2] is None or x.shape[2] != previous.shape[2]:
        previous = graph.resize(previous, f"{scope}/previous", like=x)
    if previous.shape[-1] != row.filters:
        previous = _nas_projection(tower, previous, f"{scope}/prev_1x1", f"{scope}/prev_bn", row.filters)
    states = [_nas_projection(tower, x, f"{scope}/1x1", f"{scope}/beginning_bn", row.filters), previous]
    for k, pair in enumerate(row.operations):
        sides = [
            # Only the cell's two inputs still have the size from before the stride.
            _nas_path(tower, states[i], f"{scope}/comb_iter_{k}/{side}", kind, row, stride if i < 2 else 1)
            for side, (i, kind) in zip(("left", "right"), pair, strict=True)
        ]
        states.append(graph.add(sides, f"{scope}/comb_iter_{k}/add"))
    x = graph.op(keras.layers.Concatenate, f"{scope}/concat", states[2:])
    tower.history.append(x)
    return tower.tap(row.end_point, x)


# How each kind of row is built: from the maps before it, with the stride and the rate that the output stride leaves it.
_UNITS: dict[type, Callable[..., Maps]] = {
    Conv: _conv,
    MaxPool: _max_pool,
    Activation: _activation,
    SeparableUnit: _separable_unit,
    XceptionUnit: _xception_unit,
    InvertedResidual: _inverted_residual,
    ResNetUnit: _resnet_unit,
    NasCell: _nas_cell,
}


def _norm(architecture: Architecture, config: ModelConfig) -> Norm | None:
    """Returns the norms of a backbone: its own, those of another method, or None."""
    if config.normalization_method == "group":
        return GroupNorm(config.group_norm_groups)
    norm = architecture.batch_norm if config.normalization_method == "batch" else None
    if norm is None or config.batch_norm_epsilon is None:
        return norm
    return dataclasses.replace(norm, epsilon=config.batch_norm_epsilon)


def backbone(
    graph: Graph,
    images: Maps,
    config: ModelConfig,
    *,
    architecture: Architecture | None = None,
    output_stride: int | None = 0,
) -> tuple[Maps, dict[str, Maps]]:
    """Adds a backbone to `graph`.

    Args:
      graph: where the layers go.
      images: Keras tensor [b, h, w, 3], 0..255.
      config: the options; its model_variant chooses the architecture unless one is given.
      architecture: rows to build instead (small networks of tests).
      output_stride: instead of the configuration's; None is the nominal one, without atrous convolution.

    Returns:
      (features [b, h', w', c], end points: name -> tensor), named as the release names them.
    """
    architecture = architecture or ARCHITECTURES[config.model_variant]
    output_stride = config.output_stride if output_stride == 0 else output_stride
    kernels = graph.standardizing() if config.use_weight_standardization else graph
    norm = _norm(architecture, config)
    tower = _Tower(kernels, architecture, norm, config.use_bounded_activation and architecture.bounded)
    x = graph.preprocess(images, architecture.scope, architecture.on_bands(config.mean_pixel))
    rows = architecture.units(config)
    strides = [row.stride for row in rows]
    if architecture.strides_from_rows:
        walk = [(stride, 1) for stride in strides]
    else:
        walk = strides_and_rates(strides, output_stride)
    for row, (stride, rate) in zip(rows, walk, strict=True):
        x = _UNITS[type(row)](tower, x, row, stride, rate)
    return x, tower.end_points


def build_backbone(config: ModelConfig, *, zeros: bool = False) -> keras.Model:
    """Returns the backbone alone: images [b, h, w, 3] in 0..255 -> {"features": [b, h', w', c], end points by name}.

    The end points carry the release's names, for instance "xception_65/entry_flow/block1" or "layer_4/output". With
    `zeros` all kernels start at 0 instead of being drawn, for weights that are loaded into them.

    Example:
    >>> backbone = deeplab_tf.build_backbone(deeplab_tf.ModelConfig(model_variant="tiny", crop_size=(65, 65)))
    >>> backbone.output["features"].shape[1:3]
    (5, 5)
    """
    height, width = config.crop_size or (None, None)
    images = keras.Input((height, width, config.input_channels), name="images")
    features, end_points = backbone(Graph(zeros=zeros), images, config)
    return keras.Model(images, {"features": features, **end_points}, name=config.model_variant)
