"""A backbone as the ImageNet classifier that it was trained as (release: core/xception.py, resnet_v1_beta.py; slim)."""

import keras

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.backbone import backbone
from deeplab_tf.network.graph import POINTWISE, After, Graph


def build_classifier(
    config: ModelConfig, classes: int, *, tail_filters: int | None = None, zeros: bool = False
) -> keras.Model:
    """Returns the classifier: images [b, h, w, 3], 0..255 -> logits [b, classes].

    The backbone has its nominal output stride, as in ImageNet's training. Dropout, which only training has, is left
    out.

    Args:
      config: the backbone's options; those of the head do not matter.
      classes: of the last convolution; the release's are 1,001, of which the first is the background.
      tail_filters: of the convolution before the mean, where the backbone has one; None: 1,280 times a depth
        multiplier above 1 (slim's mobilenet_v2.py).
      zeros: start all kernels at 0 instead of drawing them, which takes most of the time.

    Raises:
      DeepLabError: no classifier of this backbone is known.
    """
    architecture = ARCHITECTURES[config.model_variant]
    end = architecture.classifier
    if end is None:
        known = ", ".join(name for name, other in ARCHITECTURES.items() if other.classifier)
        raise DeepLabError(f"model_variant={config.model_variant}: has no ImageNet classifier here; expected {known}")
    height, width = config.crop_size or (None, None)
    images = keras.Input((height, width, config.input_channels), name="images")
    graph = Graph(zeros=zeros)
    maps, _ = backbone(graph, images, config, output_stride=None)
    if end.tail:
        filters = tail_filters or int(1280 * max(1.0, config.depth_multiplier))
        after = After(norm=architecture.batch_norm, activation="relu6")
        scope = f"{architecture.scope}/{end.tail}"
        maps = graph.conv(maps, scope, filters, POINTWISE, after, init=architecture.initializer)
    pooled = graph.op(keras.layers.GlobalAveragePooling2D, f"{architecture.scope}/global_pool", maps, keepdims=True)
    scope = f"{architecture.scope}/{end.logits}"
    logits = graph.conv(pooled, scope, classes, POINTWISE, After(bias=True), init=architecture.initializer)
    outputs = graph.op(keras.layers.Reshape, f"{architecture.scope}/predictions", logits, target_shape=(classes,))
    return keras.Model(images, outputs, name=f"{config.model_variant}_classifier")
