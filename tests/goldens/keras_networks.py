"""The second system's Keras networks in plain Keras layers, and `python tests/goldens/keras_networks.py` to record them.

Written from what bubbliiiing/deeplabv3-plus-keras and -tf2 publish of their layers (names, strides, rates, epsilons;
nets/deeplab.py, mobilenet.py and Xception.py), without the package's own network: it is what that one is judged by.
"""

import json
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from golden import golden_image  # noqa: E402
from keras2_files import golden_value  # noqa: E402

layers = keras.layers
# (backbone, downsample factor, height, width); even sides tell how strided convolutions pad.
CASES = (("mobilenet", 16, 96, 128), ("mobilenet", 8, 64, 96), ("xception", 16, 64, 96))
_BLOCKS = (
    *((16, 1, 0, False), (24, 2, 0, False), (24, 1, 0, True), (32, 2, 0, False), (32, 1, 0, True), (32, 1, 0, True)),
    *((64, 4, 0, False), (64, 1, 4, True), (64, 1, 4, True), (64, 1, 4, True)),
    *((96, 1, 4, False), (96, 1, 4, True), (96, 1, 4, True), (160, 1, 4, False), (160, 1, 5, True), (160, 1, 5, True)),
    (320, 1, 5, False),
)


def _norm(x, name, epsilon=1e-3):
    return layers.BatchNormalization(name=f"{name}_BN", epsilon=epsilon)(x)


def _conv(x, filters, name, size=1, **options):
    return layers.Conv2D(filters, size, use_bias=False, padding="same", name=name, **options)(x)


def _separable(x, filters, name, stride=1, rate=1, inside=False, epsilon=1e-3):
    padding = "same"
    if stride > 1:
        x, padding = layers.ZeroPadding2D(rate)(x), "valid"
    if not inside:
        x = layers.ReLU()(x)
    options = {"strides": stride, "dilation_rate": rate, "padding": padding, "use_bias": False}
    x = _norm(layers.DepthwiseConv2D(3, name=f"{name}_depthwise", **options)(x), f"{name}_depthwise", epsilon)
    if inside:
        x = layers.ReLU()(x)
    x = _norm(_conv(x, filters, f"{name}_pointwise"), f"{name}_pointwise", epsilon)
    return layers.ReLU()(x) if inside else x


def _mobilenet(x, factor):
    rates = {0: 1, 4: 16 // factor, 5: 32 // factor}
    x = layers.ReLU(6.0)(_norm(_conv(x, 32, "Conv", 3, strides=2), "Conv"))
    low = x
    for number, (filters, stride, level, skip) in enumerate(_BLOCKS):
        name = f"expanded_conv_{number}_" if number else "expanded_conv_"
        stride = factor // 8 if stride == 4 else stride
        inputs = x
        if number:
            x = layers.ReLU(6.0)(_norm(_conv(x, 6 * x.shape[-1], f"{name}expand"), f"{name}expand"))
        options = {"strides": stride, "dilation_rate": rates[level], "padding": "same", "use_bias": False}
        x = layers.DepthwiseConv2D(3, name=f"{name}depthwise", **options)(x)
        x = layers.ReLU(6.0)(_norm(x, f"{name}depthwise"))
        x = _norm(_conv(x, filters, f"{name}project"), f"{name}project")
        x = layers.Add()([inputs, x]) if skip else x
        low = x if number == 2 else low
    return x, low


def _xception_block(x, filters, name, skip, stride=1, rate=1, inside=False):
    residual = low = x
    for n in range(3):
        step = stride if n == 2 else 1
        residual = _separable(residual, filters[n], f"{name}_separable_conv{n + 1}", step, rate, inside)
        low = residual if n == 1 else low
    if skip == "conv":
        x = _norm(_conv(x, filters[-1], f"{name}_shortcut", strides=stride), f"{name}_shortcut")
    return (residual if skip == "none" else layers.Add()([residual, x])), low


def _xception(x, factor):
    rate = 16 // factor
    x = layers.ReLU()(_norm(_conv(x, 32, "entry_flow_conv1_1", 3, strides=2), "entry_flow_conv1_1"))
    x = layers.ReLU()(_norm(_conv(x, 64, "entry_flow_conv1_2", 3), "entry_flow_conv1_2"))
    x, _ = _xception_block(x, [128] * 3, "entry_flow_block1", "conv", 2)
    x, low = _xception_block(x, [256] * 3, "entry_flow_block2", "conv", 2)
    x, _ = _xception_block(x, [728] * 3, "entry_flow_block3", "conv", factor // 8)
    for n in range(16):
        x, _ = _xception_block(x, [728] * 3, f"middle_flow_unit_{n + 1}", "sum", 1, rate)
    x, _ = _xception_block(x, [728, 1024, 1024], "exit_flow_block1", "conv", 1, rate)
    x, _ = _xception_block(x, [1536, 1536, 2048], "exit_flow_block2", "none", 1, 2 * rate, inside=True)
    return x, low


class Corners(layers.Layer):
    """Resizes with aligned corners."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def call(self, x):
        return tf.compat.v1.image.resize_bilinear(x, self.size, align_corners=True)


def network(backbone, factor, height, width, classes=21):
    """Returns images [b, height, width, 3] in -1..1 -> logits before the last resize."""
    images = keras.Input((height, width, 3))
    x, low = {"mobilenet": _mobilenet, "xception": _xception}[backbone](images, factor)
    pooled = _conv(layers.GlobalAveragePooling2D(keepdims=True)(x), 256, "image_pooling")
    pooled = Corners(x.shape[1:3])(layers.ReLU()(_norm(pooled, "image_pooling", 1e-5)))
    branches = [pooled, layers.ReLU()(_norm(_conv(x, 256, "aspp0"), "aspp0", 1e-5))]
    for n in (1, 2, 3):
        branches.append(_separable(x, 256, f"aspp{n}", 1, n * 96 // factor, inside=True, epsilon=1e-5))
    x = _conv(layers.Concatenate()(branches), 256, "concat_projection")
    x = Corners(low.shape[1:3])(layers.ReLU()(_norm(x, "concat_projection", 1e-5)))
    low = layers.ReLU()(_norm(_conv(low, 48, "feature_projection0"), "feature_projection0", 1e-5))
    x = layers.Concatenate()([x, low])
    for n in (0, 1):
        x = _separable(x, 256, f"decoder_conv{n}", inside=True, epsilon=1e-5)
    return keras.Model(images, layers.Conv2D(classes, 1, name="conv2d")(x))


def leaf_of(layer, variable):
    """Returns Keras 2's name of a variable."""
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    return "depthwise_kernel" if depthwise and variable.name == "kernel" else variable.name


def main():
    for backbone, factor, height, width in CASES:
        name = f"seed2_keras_{backbone}_{factor}_{height}x{width}"
        model = network(backbone, factor, height, width)
        shapes = {}
        for layer in model.layers:
            if layer.weights:
                shapes[layer.name] = {leaf_of(layer, v): list(v.shape) for v in layer.weights}
                layer.set_weights([golden_value(layer.name, leaf, tuple(s)) for leaf, s in shapes[layer.name].items()])
        image = golden_image(name, height, width)[None].astype(np.float32)
        logits = model(image / 127.5 - 1.0).numpy()[0]
        facts = {"backbone": backbone, "downsample_factor": factor, "height": height, "width": width}
        facts |= {"input": "golden_image(name, height, width) / 127.5 - 1", "layers": shapes}
        (HERE / "keras" / f"{name}.json").write_text(json.dumps(facts) + "\n")
        np.savez(HERE / "keras" / f"{name}.npz", every_fourth=logits[::4, ::4], largest=np.abs(logits).max())
        print(name, logits.shape, np.abs(logits).max(), flush=True)


if __name__ == "__main__":
    main()
