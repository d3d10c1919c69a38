"""The interpreter: turns the rows of an architecture into Keras layers and names the tensors that others tap."""

import dataclasses

import keras

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.arch.spec import (
    Activation,
    Architecture,
    Conv,
    InvertedResidual,
    MaxPool,
    NasCell,
    ResNetUnit,
    SeparableUnit,
    XceptionUnit,
    strides_and_rates,
)
from deeplab_tf.config import ModelConfig
from deeplab_tf.network.graph import Graph
from deeplab_tf.network.layers import DropPath


@dataclasses.dataclass
class _Tower:
    """What the units of one backbone share: the graph, the architecture, the end points so far, and the outputs of
    the NAS stem and cells."""

    graph: Graph
    architecture: Architecture
    bounded: bool
    end_points: dict = dataclasses.field(default_factory=dict)
    history: list = dataclasses.field(default_factory=list)

    @property
    def relu(self) -> str:
        return "relu6" if self.bounded else "relu"

    def scope(self, name: str) -> str:
        return f"{self.architecture.scope}/{name}"

    def tap(self, name: str, x):
        self.end_points[name] = x
        return x

    def conv(self, x, scope: str, filters: int, kernel: int, **options):
        norm = self.architecture.batch_norm
        options = {"norm": norm, "bias": norm is None, "init": self.architecture.initializer, **options}
        return self.graph.conv(x, scope, filters, kernel, **options)


def _conv(tower: _Tower, x, row: Conv, stride: int, rate: int):
    scope = tower.scope(row.scope)
    activation = tower.relu if row.activation == "relu" else row.activation
    x = tower.conv(
        x,
        scope,
        row.filters,
        row.kernel,
        stride=stride,
        rate=rate * row.rate if row.kernel > 1 else 1,
        explicit_padding=row.explicit_padding,
        **({"norm": None} if row.norm_scope else {"activation": activation}),
    )
    if row.norm_scope:
        x = tower.graph.norm(x, tower.scope(row.norm_scope), tower.architecture.batch_norm)
        if row.keep_for_cells:
            tower.history.append(x)
        x = tower.graph.activation(x, scope, activation)
    if row.end_point:
        bare = tower.architecture.bare_end_points
        tower.tap(row.end_point if bare else tower.scope(row.end_point), x)
    return x


def _max_pool(tower: _Tower, x, row: MaxPool, stride: int, rate: int):
    del rate
    scope, options = tower.scope(row.scope), {"pool_size": 3, "strides": stride, "padding": "same"}
    if row.explicit_padding:
        # The map is rectified, so that zeros never win against a pixel.
        x, options = tower.graph.pad(x, scope, 3), {**options, "padding": "valid"}
    x = tower.graph.op(keras.layers.MaxPooling2D, scope, x, **options)
    return tower.tap(tower.scope(row.end_point), x) if row.end_point else x


def _activation(tower: _Tower, x, row: Activation, stride: int, rate: int):
    del stride, rate
    return tower.graph.activation(x, tower.architecture.scope, row.activation)


def _separable_unit(tower: _Tower, x, row: SeparableUnit, stride: int, rate: int):
    depthwise, pointwise = row.scopes
    options = {"norm": tower.architecture.batch_norm, "activation": row.activation}
    x = tower.graph.depthwise(x, tower.scope(depthwise), 3, stride=stride, rate=rate, **options)
    tower.tap(depthwise, x)
    return tower.tap(pointwise, tower.conv(x, tower.scope(pointwise), row.filters, 1, activation=row.activation))


def _xception_separable(tower: _Tower, x, scope: str, filters: int, row: XceptionUnit, stride: int, rate: int):
    if not row.activation_inside:
        x = tower.graph.activation(x, scope, tower.relu)
    after = tower.relu if row.activation_inside else "bound" if tower.bounded else None
    x = tower.graph.depthwise(
        x,
        f"{scope}_depthwise",
        3,
        stride=stride,
        rate=rate,
        explicit_padding=not tower.bounded,
        norm=tower.architecture.batch_norm,
        activation=after,
    )
    tower.tap(f"{scope}_depthwise", x)
    return tower.tap(f"{scope}_pointwise", tower.conv(x, f"{scope}_pointwise", filters, 1, activation=after))


def _xception_unit(tower: _Tower, x, row: XceptionUnit, stride: int, rate: int):
    scope, graph = tower.scope(row.scope), tower.graph
    residual = x
    for i, filters in enumerate(row.filters):
        name = f"{scope}/separable_conv{i + 1}"
        step = stride if i == 2 else 1
        residual = _xception_separable(tower, residual, name, filters, row, step, rate * row.rates[i])
    if row.skip == "conv":
        x = tower.tap(f"{scope}/shortcut", tower.conv(x, f"{scope}/shortcut", row.filters[-1], 1, stride=stride))
    if row.skip != "none":
        if tower.bounded:
            residual = graph.activation(residual, f"{scope}/residual", "bound")
            x = graph.activation(x, f"{scope}/shortcut_or_input", "bound")
        residual = graph.add([residual, x], f"{scope}/add", "relu6" if tower.bounded else None)
    tower.tap(scope, residual)
    if row.ends_block:
        tower.tap(tower.scope(row.ends_block), residual)
    return residual


def _squeeze_excite(tower: _Tower, x, scope: str, width: int):
    pooled = tower.graph.op(keras.layers.GlobalAveragePooling2D, f"{scope}/mean", x, keepdims=True)
    pooled = tower.graph.held(pooled, f"{scope}/mean_quant")  # unlike a pooling window's, a range of its own
    options = {"norm": None, "bias": True}
    gate = tower.conv(pooled, f"{scope}/Conv", width, 1, activation="relu", **options)
    gate = tower.conv(gate, f"{scope}/Conv_1", x.shape[-1], 1, activation="q_sigmoid", **options)
    return tower.graph.op(keras.layers.Multiply, f"{scope}/multiply", [x, gate])


def _inverted_residual(tower: _Tower, x, row: InvertedResidual, stride: int, rate: int):
    scope, shortcut = tower.scope(row.scope), x
    if row.expanded > row.inputs:
        # A fused block's one convolution carries the kernel, the stride and the rate.
        kernel, options = (row.kernel, {"stride": stride, "rate": rate}) if row.fused else (1, {})
        x = tower.conv(x, f"{scope}/expand", row.expanded, kernel, activation=row.activation, **options)
        tower.tap(f"{row.end_point}/expansion_output", x)
    if not row.fused:
        x = tower.graph.depthwise(
            x,
            f"{scope}/depthwise",
            row.kernel,
            stride=stride,
            rate=rate,
            norm=tower.architecture.batch_norm,
            activation=row.activation,
        )
        tower.tap(f"{row.end_point}/depthwise_output", x)
    if row.squeeze:
        x = _squeeze_excite(tower, x, f"{scope}/squeeze_excite", row.squeeze)
    x = tower.conv(x, f"{scope}/project", row.filters, 1)
    if row.residual and stride == 1 and shortcut.shape[-1] == row.filters:
        x = tower.graph.add([x, shortcut], f"{scope}/add")
    tower.tap(f"{row.end_point}/output", x)
    return tower.tap(row.end_point, x)


def _resnet_shortcut(tower: _Tower, x, row: ResNetUnit, stride: int):
    scope = f"{tower.scope(row.scope)}/shortcut"
    if x.shape[-1] != row.filters:
        return tower.tap(scope, tower.conv(x, scope, row.filters, 1, stride=stride))
    if stride == 1:
        return x
    return tower.graph.op(keras.layers.MaxPooling2D, scope, x, pool_size=1, strides=stride, padding="same")


def _resnet_unit(tower: _Tower, x, row: ResNetUnit, stride: int, rate: int):
    scope = tower.scope(row.scope)
    shortcut = _resnet_shortcut(tower, x, row, stride)
    dilated, strided = {"rate": rate * row.rate}, {"stride": stride, "explicit_padding": True}
    if row.bottleneck:
        convs = (
            (row.bottleneck, 1, "relu", {}),
            (row.bottleneck, 3, "relu", {**dilated, **strided}),
            (row.filters, 1, None, {}),
        )
    else:
        convs = ((row.filters, 3, "relu", dilated), (row.filters, 3, None, {**dilated, **strided}))
    for n, (filters, kernel, activation, options) in enumerate(convs, start=1):
        x = tower.conv(x, f"{scope}/conv{n}", filters, kernel, activation=activation, **options)
        tower.tap(f"{scope}/conv{n}", x)
    x = tower.tap(scope, tower.graph.add([shortcut, x], f"{scope}/add", "relu"))
    return tower.tap(tower.scope(row.ends_block), x) if row.ends_block else x


def _nas_projection(tower: _Tower, x, scope: str, norm_scope: str, filters: int, stride: int = 1):
    x = tower.graph.activation(x, scope, "relu")
    x = tower.conv(x, scope, filters, 1, stride=stride, norm=None)
    return tower.graph.norm(x, norm_scope, tower.architecture.batch_norm)


def _nas_convolution(tower: _Tower, x, scope: str, kind: str, filters: int, stride: int):
    graph, (operation, size) = tower.graph, kind.split("_")
    kernel, norm = int(size[0]), tower.architecture.batch_norm
    if operation == "separable":
        for n, step in ((1, stride), (2, 1)):
            name = f"{scope}/separable_{size}_{n}"
            x = graph.separable(graph.activation(x, name, "relu"), name, filters, kernel, stride=step)
            x = graph.norm(x, f"{scope}/bn_sep_{size}_{n}", norm)
        return x
    name = f"{scope}/atrous_{size}"
    x = graph.activation(x, name, "relu")
    if stride > 1:
        x = graph.resize(x, name, like=x, scale=0.5)
    x = tower.conv(x, name, filters, kernel, rate=1 if stride > 1 else 2, norm=None)
    return graph.norm(x, f"{scope}/bn_atr_{size}", norm)


def _nas_operation(tower: _Tower, x, scope: str, kind: str, filters: int, stride: int):
    if kind.startswith("max"):
        options = {"pool_size": 3, "strides": stride, "padding": "same"}
        return tower.graph.op(keras.layers.MaxPooling2D, f"{scope}/{kind}", x, **options)
    if kind == "none":
        return x if stride == 1 else _nas_projection(tower, x, f"{scope}/1x1", f"{scope}/bn_1", filters, stride)
    return _nas_convolution(tower, x, scope, kind, filters, stride)


def _nas_path(tower: _Tower, x, scope: str, kind: str, row: NasCell, stride: int):
    x = _nas_operation(tower, x, scope, kind, row.filters, stride)
    return x if kind == "none" else tower.graph.op(DropPath, f"{scope}/drop_path", x, depth=row.depth)


def _nas_cell(tower: _Tower, x, row: NasCell, stride: int, rate: int):
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


_UNITS = {
    Conv: _conv,
    MaxPool: _max_pool,
    Activation: _activation,
    SeparableUnit: _separable_unit,
    XceptionUnit: _xception_unit,
    InvertedResidual: _inverted_residual,
    ResNetUnit: _resnet_unit,
    NasCell: _nas_cell,
}


def backbone(graph: Graph, images, config: ModelConfig, *, architecture: Architecture | None = None, output_stride=0):
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
    tower = _Tower(graph, architecture, config.use_bounded_activation and architecture.bounded)
    x = graph.preprocess(images, architecture.scope, architecture)
    rows = architecture.units(config)
    strides = [row.stride for row in rows]
    if architecture.strides_from_rows:
        walk = [(stride, 1) for stride in strides]
    else:
        walk = strides_and_rates(strides, output_stride)
    for row, (stride, rate) in zip(rows, walk, strict=True):
        x = _UNITS[type(row)](tower, x, row, stride, rate)
    return x, tower.end_points


def build_backbone(config: ModelConfig) -> keras.Model:
    """Returns the backbone alone: images [b, h, w, 3] in 0..255 -> {"features": [b, h', w', c], end points by name}.

    The end points carry the release's names, for instance "xception_65/entry_flow/block1" or "layer_4/output".
    """
    height, width = config.crop_size or (None, None)
    images = keras.Input((height, width, 3), name="images")
    features, end_points = backbone(Graph(), images, config)
    return keras.Model(images, {"features": features, **end_points}, name=config.model_variant)
