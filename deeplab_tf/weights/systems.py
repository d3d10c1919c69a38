"""The systems besides TensorFlow's whose weights can be read, each a table of rules from its modules to TF1 scopes."""

from collections.abc import Collection

from deeplab_tf.arch.spec import TORCH_DEVIATION
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.renaming import NORM, Row, System

# transformers' MobileNetV2ForSemanticSegmentation, and without its head MobileNetV2ForImageClassification.
_LAYER = {"convolution": "", "normalization": "/BatchNorm"}
_CLASSIFIER = "belongs to the ImageNet classifier, which segmentation does not run"
HUGGING_FACE = System(
    name="Hugging Face transformers (MobileNetV2)",
    marks=("mobilenet_v2.conv_stem.first_conv.convolution.weight",),
    rows=(
        Row("mobilenet_v2.conv_stem.first_conv", "MobilenetV2/Conv", _LAYER),
        Row("mobilenet_v2.conv_stem.expand_1x1", "MobilenetV2/expanded_conv/expand", _LAYER),
        Row("mobilenet_v2.conv_stem.conv_3x3", "MobilenetV2/expanded_conv/depthwise", _LAYER),
        Row("mobilenet_v2.conv_stem.reduce_1x1", "MobilenetV2/expanded_conv/project", _LAYER),
        Row("mobilenet_v2.layer.{}.expand_1x1", "MobilenetV2/expanded_conv_{+1}/expand", _LAYER),
        Row("mobilenet_v2.layer.{}.conv_3x3", "MobilenetV2/expanded_conv_{+1}/depthwise", _LAYER),
        Row("mobilenet_v2.layer.{}.reduce_1x1", "MobilenetV2/expanded_conv_{+1}/project", _LAYER),
        Row("mobilenet_v2.conv_1x1", None, _LAYER, _CLASSIFIER),
        Row("classifier", None, reason=_CLASSIFIER),
        Row("segmentation_head.conv_pool", "image_pooling", _LAYER),
        Row("segmentation_head.conv_aspp", "aspp0", _LAYER),
        Row("segmentation_head.conv_projection", "concat_projection", _LAYER),
        Row("segmentation_head.classifier", "logits/semantic", _LAYER),
    ),
)

# bubbliiiing/deeplabv3-plus-pytorch (nets/deeplabv3_plus.py, mobilenetv2.py, xception.py): the head of both backbones.
_CONV_NORM = {"0": "", "1": "/BatchNorm"}
_HEAD = (
    Row("aspp.branch1", "aspp0", _CONV_NORM),
    Row("aspp.branch{2-4}", "aspp{-1}", _CONV_NORM),
    Row("aspp.branch5_conv", "image_pooling"),
    Row("aspp.branch5_bn", "image_pooling", NORM),
    Row("aspp.conv_cat", "concat_projection", _CONV_NORM),
    Row("shortcut_conv", "decoder/feature_projection0", _CONV_NORM),
    Row("cat_conv", "decoder/decoder_conv0/decoder_conv0_1", _CONV_NORM),
    Row("cat_conv", "decoder/decoder_conv0/decoder_conv0_2", {"4": "", "5": "/BatchNorm"}),
    Row("cls_conv", "logits/semantic"),
)
_DEPTHWISE_FIRST = {"0": "/depthwise", "1": "/depthwise/BatchNorm", "3": "/project", "4": "/project/BatchNorm"}
_EXPANDED = {
    "0": "/expand",
    "1": "/expand/BatchNorm",
    "3": "/depthwise",
    "4": "/depthwise/BatchNorm",
    "6": "/project",
    "7": "/project/BatchNorm",
}
PYTORCH_MOBILENET = System(
    name="deeplabv3-plus-pytorch (MobileNetV2)",
    marks=("backbone.features.0.0.weight", "aspp.branch5_conv.weight"),
    rows=(
        Row("backbone.features.0", "MobilenetV2/Conv", _CONV_NORM),
        Row("backbone.features.1.conv", "MobilenetV2/expanded_conv", _DEPTHWISE_FIRST),
        Row("backbone.features.{2-17}.conv", "MobilenetV2/expanded_conv_{-1}", _EXPANDED),
        *_HEAD,
    ),
    model_variant="mobilenet_v2_pytorch",
    pooling_last=True,
)
_SEPARABLE = {
    "depthwise": "_depthwise",
    "bn1": "_depthwise/BatchNorm",
    "pointwise": "_pointwise",
    "bn2": "_pointwise/BatchNorm",
}
_SKIP = {"skip": "", "skipbn": "/BatchNorm"}
_ENTRY = "xception_65/entry_flow/block{}/unit_1/xception_module"
_MIDDLE = "xception_65/middle_flow/block1/unit_{-3}/xception_module"
_EXIT_1 = "xception_65/exit_flow/block1/unit_1/xception_module"
_EXIT_2 = "xception_65/exit_flow/block2/unit_1/xception_module"
PYTORCH_XCEPTION = System(
    name="deeplabv3-plus-pytorch (Xception)",
    marks=("backbone.block1.sepconv1.depthwise.weight", "aspp.branch5_conv.weight"),
    rows=(
        Row("backbone.conv{1-2}", "xception_65/entry_flow/conv1_{}"),
        Row("backbone.bn{1-2}", "xception_65/entry_flow/conv1_{}", NORM),
        Row("backbone.block{1-3}", f"{_ENTRY}/shortcut", _SKIP),
        Row("backbone.block{1-3}.sepconv{1-3}", f"{_ENTRY}/separable_conv{{}}", _SEPARABLE),
        Row("backbone.block{4-19}.sepconv{1-3}", f"{_MIDDLE}/separable_conv{{}}", _SEPARABLE),
        Row("backbone.block20", f"{_EXIT_1}/shortcut", _SKIP),
        Row("backbone.block20.sepconv{1-3}", f"{_EXIT_1}/separable_conv{{}}", _SEPARABLE),
        Row("backbone.conv{3-5}", f"{_EXIT_2}/separable_conv{{-2}}", _SEPARABLE),
        *_HEAD,
    ),
    model_variant="xception_65_pytorch",
    pooling_last=True,
)


def _torchvision(depth: int, last: int) -> System:
    """Returns torchvision's deeplabv3_resnet50 or 101, whose third stage ends in block `last`."""
    unit = f"resnet_v1_{depth}/block{{}}/unit_{{+1}}/bottleneck_v1"
    return System(
        name=f"torchvision (deeplabv3_resnet{depth})",
        marks=("classifier.0.convs.0.0.weight", f"backbone.layer3.{last}.conv3.weight"),
        rows=(
            Row("backbone.conv1", f"resnet_v1_{depth}/conv1"),
            Row("backbone.bn1", f"resnet_v1_{depth}/conv1", NORM),
            Row("backbone.layer{1-4}.{}.conv{1-3}", f"{unit}/conv{{}}"),
            Row("backbone.layer{1-4}.{}.bn{1-3}", f"{unit}/conv{{}}", NORM),
            Row("backbone.layer{1-4}.{}.downsample", f"{unit}/shortcut", _CONV_NORM),
            Row("classifier.0.convs.0", "aspp0", _CONV_NORM),
            Row("classifier.0.convs.{1-3}", "aspp{}", _CONV_NORM),
            Row("classifier.0.convs.4", "image_pooling", {"1": "", "2": "/BatchNorm"}),
            Row("classifier.0.project", "concat_projection", _CONV_NORM),
            Row("classifier", "aspp_conv0", {"1": "", "2": "/BatchNorm"}),
            Row("classifier.4", "logits/semantic"),
            Row("aux_classifier.{}", None, reason="belongs to the auxiliary classifier, which only training runs"),
        ),
        model_variant=f"resnet_v1_{depth}_pytorch",
        pooling_last=True,
        first_kernel=f"resnet_v1_{depth}/conv1/weights",
        deviation=TORCH_DEVIATION,
        note="torchvision enlarges logits without aligned corners, and here corners are aligned: classes may differ at "
        "borders",
    )


TORCHVISION = (_torchvision(101, 22), _torchvision(50, 5))
SYSTEMS = (HUGGING_FACE, PYTORCH_MOBILENET, PYTORCH_XCEPTION, *TORCHVISION)
# A variable that the files of a system have which no option here builds, and what is missing.
_OTHERS = {
    "classifier.0.convs.0.0.weight": (
        "torchvision's DeepLabV3 on another backbone than ResNet-50 and ResNet-101: its MobileNetV3 has variables that "
        "no rows here have"
    ),
    "segmentation_head.0.weight": (
        "segmentation_models_pytorch: where its encoder has no stride, the first unit has the rate of the others too, "
        "and the separable convolutions of its head have no batch norm between their halves; no option here builds that"
    ),
}


def system_of(names: Collection[str]) -> System | None:
    """Returns the system whose variables these are; None: they have TF1's names.

    Raises:
      DeepLabError: it is another one.
    """
    for system in SYSTEMS:
        if all(mark in names for mark in system.marks):
            return system
    for mark, missing in _OTHERS.items():
        if mark in names:
            raise DeepLabError(f"weights of {missing}; train with --config, or export to ONNX from there")
    if any("/" in name for name in names):
        return None
    shown = ", ".join(" ".join(name.split())[:60] for name in sorted(names)[:3])
    known = "; ".join(system.name for system in SYSTEMS)
    raise DeepLabError(f"weights of an unknown network ({shown}, ...); expected TF1's names, or those of {known}")
