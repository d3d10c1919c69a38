"""How much of an image the maps of a network see, counted from a Keras model that was built for a crop."""

import math
from collections.abc import Mapping

import keras

from deeplab_tf.network.cost import calls_of, input_shapes
from deeplab_tf.network.layers import ResizeBilinear

_POOLINGS = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)


def _reach(layer: keras.layers.Layer) -> int | float:
    """Returns how many positions of its input lie between the first and the last that an output is computed from."""
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return math.inf
    if isinstance(layer, _CONVOLUTIONS):
        return max((side - 1) * rate for side, rate in zip(layer.kernel_size, layer.dilation_rate, strict=True))
    if isinstance(layer, _POOLINGS):
        return max(layer.pool_size) - 1
    return 1 if isinstance(layer, ResizeBilinear) else 0


def receptive_fields(model: keras.Model) -> Mapping[str, float]:
    """Returns layer name -> side in pixels of the square of the image that a position of its output depends on.

    Infinite where a pooling sees the whole image. Padding does not count, so that the field may exceed the image.

    Args:
      model: from `build_model`, for a crop.
    """
    shapes = input_shapes(model, None)
    image = model.input_shape[2]
    fields: dict[str, float] = {}
    waiting = list(calls_of(model).items())
    while waiting:
        late = []
        for name, calls in waiting:
            sources = {tensor["keras_history"][0] for call in calls for tensor in call}
            if not all(source in fields for source in sources):
                late.append((name, calls))
                continue
            layer = model.get_layer(name)
            widths = [shape[2] for call in shapes[name] for shape in call if len(shape) == 4]
            # Neighbours of a map of w positions lie (image - 1) / (w - 1) pixels apart, whatever came before.
            step = (image - 1) / (min(widths) - 1) if widths and min(widths) > 1 else image
            grown = _reach(layer) * step
            fields[name] = max((fields[source] for source in sources), default=1.0) + grown
        waiting = late
    return fields
