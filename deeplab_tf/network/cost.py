"""What a network costs: variables, parameters and the multiply-adds of its convolutions, counted from a Keras model."""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import keras

from deeplab_tf.errors import DeepLabError

# The kernels of each kind of convolution, and whether the release's L2 term has them (its section on weight decay: all
# convolution kernels, but not the depthwise ones, unless the separable convolution is fused as in the NAS cells).
_KERNELS: dict[type, tuple[tuple[str, bool], ...]] = {
    keras.layers.Conv2D: (("kernel", True),),
    keras.layers.DepthwiseConv2D: (("kernel", False),),
    keras.layers.SeparableConv2D: (("depthwise_kernel", True), ("pointwise_kernel", True)),
}

_AVERAGE_POOLINGS = (keras.layers.AveragePooling2D, keras.layers.GlobalAveragePooling2D)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Counts of a network or of a part of it.

    Attributes:
      variables: number of weight tensors, moving statistics included (the release's non-slot variables).
      trainable_variables: number of those that training changes by gradients.
      parameters: number of scalars in the trainable variables: kernels, biases, gamma and beta.
      regularized: number of kernels in the L2 term.
      multiply_adds: of the convolutions for one image, kernel elements times output positions; nothing for biases,
        batch norm, pooling and resizing. None where the model takes any size and none is given.
    """

    variables: int
    trainable_variables: int
    parameters: int
    regularized: int
    multiply_adds: int | None


def _kernels(layer: keras.layers.Layer) -> list[tuple[keras.Variable, bool]]:
    for kind, kernels in _KERNELS.items():
        if isinstance(layer, kind):
            return [(getattr(layer, name), regularized) for name, regularized in kernels]
    return []


def _tensors(value: object) -> Iterator[dict]:
    """Yields the tensors in the arguments of a call, as a functional model's configuration describes them."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        yield value["config"]
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def calls_of(model: keras.Model) -> dict[str, list[list[dict]]]:
    """Returns layer name -> the tensors of each of its calls; an input layer has none."""
    layers = model.get_config()["layers"]
    return {layer["name"]: [list(_tensors(call["args"])) for call in layer["inbound_nodes"]] for layer in layers}


def input_shapes(model: keras.Model, size: tuple[int, int] | None) -> dict[str, list[list[tuple]]]:
    """Returns layer name -> the shapes of the inputs of each of its calls, for images of `size` or as it was built."""
    calls = calls_of(model)
    if size is None:
        return {name: [[tuple(t["shape"]) for t in call] for call in rows] for name, rows in calls.items()}
    inputs: dict[str, list] = {name: [None] * len(rows) for name, rows in calls.items()}
    outputs = {(name, 0): (None, *size, model.input_shape[-1]) for name, rows in calls.items() if not rows}
    waiting = [(name, index) for name, rows in calls.items() for index in range(len(rows))]
    while waiting:  # a layer that is called again may have to wait for one that comes later in the list
        late = []
        for name, index in waiting:
            sources = [tuple(tensor["keras_history"][:2]) for tensor in calls[name][index]]
            if not all(source in outputs for source in sources):
                late.append((name, index))
                continue
            shapes = [outputs[source] for source in sources]
            inputs[name][index] = shapes
            outputs[name, index] = model.get_layer(name).compute_output_shape(shapes if len(shapes) > 1 else shapes[0])
        waiting = late
    return inputs


def _pooled(layer: keras.layers.Layer, shape: tuple) -> int:
    """Returns how many values an average pooling adds up."""
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return math.prod(shape[1:])
    return math.prod(layer.pool_size) * math.prod(layer.compute_output_shape(shape)[1:])


def _multiply_adds(
    layer: keras.layers.Layer, calls: Iterable[list[tuple]], *, as_profiled: bool, depthwise: bool
) -> int | None:
    kernels = [kernel for kernel, _ in _kernels(layer)]
    if depthwise:  # of a separable convolution the first
        kernels = [] if isinstance(layer, keras.layers.Conv2D) else kernels[:1]
    elements, total = sum(math.prod(kernel.shape) for kernel in kernels), 0
    if not elements and not (as_profiled and isinstance(layer, _AVERAGE_POOLINGS)):
        return 0
    for (shape,) in calls:
        if None in shape[1:]:
            return None
        if not elements:
            total += _pooled(layer, shape) // 2
            continue
        sides, rates = layer.compute_output_shape(shape)[1:3], layer.dilation_rate if as_profiled else (1, 1)
        total += elements * math.prod(-(-side // rate) * rate for side, rate in zip(sides, rates, strict=True))
    return total


def activation_values(model: keras.Model) -> list[int]:
    """Returns how many numbers each layer's outputs hold for one image, of a model that was built for a crop."""
    sizes: list[int] = []
    for name, calls in input_shapes(model, None).items():
        layer = model.get_layer(name)
        for shapes in filter(None, calls):
            output = layer.compute_output_shape(shapes if len(shapes) > 1 else shapes[0])
            sizes.append(math.prod(side or 1 for side in output[1:]))
    return sizes


def _in_scope(name: str, scope: str | None) -> bool:
    return scope is None or name == scope or name.startswith(f"{scope}.")


def _layers(model: keras.Model, scope: str | None) -> list[keras.layers.Layer]:
    scope = scope.replace("/", ".") if scope else None
    layers = [layer for layer in model.layers if _in_scope(layer.name, scope)]
    if not layers:
        raise DeepLabError(
            f"scope={scope!r}: model {model.name!r} has no layer below it; its first layers are "
            f"{[layer.name for layer in model.layers[:3]]}"
        )
    return layers


def regularized_kernels(model: keras.Model, *, scope: str | None = None) -> list[keras.Variable]:
    """Returns the kernels of the release's L2 term: of every convolution except the depthwise ones.

    The fused separable convolutions of the NAS cells give both of their kernels. `scope` is as in `model_cost`.
    """
    return [kernel for layer in _layers(model, scope) for kernel, regularized in _kernels(layer) if regularized]


def model_cost(
    model: keras.Model,
    *,
    scope: str | None = None,
    size: tuple[int, int] | None = None,
    as_profiled: bool = False,
    depthwise: bool = False,
) -> Cost:
    """Returns the cost of a flat functional model, as `build_model` and `build_backbone` make them.

    A layer used several times (image pyramids) counts once in the variables and once a use in the multiply-adds.

    Args:
      model: its convolutions are two-dimensional: Conv2D, DepthwiseConv2D or SeparableConv2D.
      scope: count only the layers below this TF1 scope, for instance the backbone's "xception_65". None: all.
      size: height and width of the images, for a model that takes any size.
      as_profiled: count as the papers did, by TensorFlow 1's profiler and half its operations: a convolution of rate
        r on a map whose sides are rounded up to multiples of r, since that is where it ran (space_to_batch); and half
        an addition for every value that an average pooling reads.
      depthwise: count the multiply-adds of depthwise kernels only, those of separable convolutions among them.

    Raises:
      DeepLabError: no layer lies below `scope`.
    """
    layers = _layers(model, scope)
    calls = input_shapes(model, size)
    uses = [_multiply_adds(layer, calls[layer.name], as_profiled=as_profiled, depthwise=depthwise) for layer in layers]
    known = [use for use in uses if use is not None]
    trainable = [weight for layer in layers for weight in layer.trainable_weights]
    return Cost(
        variables=sum(len(layer.weights) for layer in layers),
        trainable_variables=len(trainable),
        parameters=sum(math.prod(weight.shape) for weight in trainable),
        regularized=len(regularized_kernels(model, scope=scope)),
        multiply_adds=sum(known) if len(known) == len(uses) else None,
    )
