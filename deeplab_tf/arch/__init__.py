"""The backbones as data: `ARCHITECTURES`, the only list of their names.

deeplab_tf/network/backbone.py turns their rows into layers.
"""

from deeplab_tf.arch import (
    edgetpu,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    nas,
    resnet_v1,
    small_resnet,
    tiny,
    vgg16,
    xception,
)
from deeplab_tf.arch.spec import Architecture

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for module in (
        xception,
        mobilenet_v1,
        mobilenet_v2,
        mobilenet_v3,
        edgetpu,
        resnet_v1,
        vgg16,
        nas,
        tiny,
        small_resnet,
    )
    for architecture in module.ARCHITECTURES
}
