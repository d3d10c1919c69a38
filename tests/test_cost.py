"""The cost of every architecture against the counts measured on the release's own graphs."""

import dataclasses
import functools

import keras
import pytest
from conftest import V3_HEAD

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network import graph
from deeplab_tf.network.build import build_model
from deeplab_tf.network.cost import Cost, model_cost, regularized_kernels

V3PLUS = {"atrous_rates": (6, 12, 18), "decoder_output_stride": (4,)}
CITYSCAPES = (1025, 2049)
# The flags of the released MobileNetV3 checkpoints.
V3_ZOO = {
    **V3_HEAD,
    "crop_size": CITYSCAPES,
    "image_pooling_crop_size": (769, 769),
    "image_pooling_stride": (4, 5),
}
SLIM = {"depth_multiplier": 0.75, "aspp_convs_filters": 128}
CELL = {"dense_prediction_cell_json": "dense_prediction_cell_branch5_top1_cityscapes.json"}

V1 = {"aspp_with_batch_norm": False, "output_stride": 8}
WIDE = {"atrous_rates": (4,), "fc_filters": 4096}
V2 = {**V1, "atrous_rates": (6, 12, 18, 24), "logits_kernel_size": 3}
PLAIN_ASPP = {"atrous_rates": (6, 12, 18), "aspp_with_separable_conv": False}
TORCHVISION = {**PLAIN_ASPP, "output_stride": 8, "aspp_output_convs": 1}
CASCADE = {"aspp_with_batch_norm": False, "cascade_blocks": 3, "output_stride": 256}


@dataclasses.dataclass(frozen=True)
class Row:
    """Counts of one configuration; `backbone` is (variables, parameters) below the architecture's scope."""

    variant: str
    options: dict
    variables: int
    trainable: int
    parameters: int
    backbone: tuple[int, int]
    regularized: int
    multiply_adds: float | None = None

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(model_variant=self.variant, **self.options)

    def __str__(self):
        options = [
            f"{k}={v}" for k, v in self.options.items() if k in ("crop_size", "output_stride", "depth_multiplier")
        ]
        return " ".join([self.variant, *options])


def at(height: int, width: int, output_stride: int = 16, **options) -> dict:
    return {"crop_size": (height, width), "output_stride": output_stride, **options}


# Measured on TF1 graphs of the release (specification, 1.16), but for two rows it lacks:
# * resnet_v1_101 is resnet_v1_101_beta with the plain stem. Stems do not depend on the depth, so the rows of
#   resnet_v1_50_beta and resnet_v1_50 give the difference: 10 variables, 6 trainable, 2 kernels and 123,776 parameters.
#   The release's own graph agrees: golden/models/resnet_v1_101_v3_os16_nodecoder.json has 567 variables and 45,525,333
#   parameters without the decoder, which has 25 and 162,928 in the graphs of xception_65.
# * resnet_v1_18 is resnet_v1_18_beta with one 7x7 convolution to 64 channels (9,408 + 128) instead of three of 3x3 to
#   16, 16 and 32 (432 + 2,304 + 4,608 + 128). Block 1 then starts from 64 channels, not 32: its first 3x3 grows by
#   9 * 32 * 64 = 18,432 and the shortcut 32 -> 64 (2,048 + 128) is not there. In all 18,320 parameters more, and four
#   convolutions with their batch norms instead of one (15 variables, 9 trainable, 3 kernels).
MNV2, DM05 = (272, 164, 2_113_557, (255, 1_811_712), 38), (272, 164, 697_013, (255, 477_088), 38)
EDGETPU, EDGETPU_SLIM = (307, 185, 3_603_797, (290, 2_810_432), 49), (307, 185, 1_942_445, (290, 1_660_440), 49)
XCEPTION_65 = (732, 440, 41_055_413, (660, 37_867_312), 79)
ROWS = (
    Row("mobilenet_v2", at(513, 513), *MNV2, 2.742e9),
    Row("mobilenet_v2", at(*CITYSCAPES), *MNV2, 21.24e9),
    Row("mobilenet_v2", at(513, 513, depth_multiplier=0.5), *DM05, 0.868e9),
    Row("mobilenet_v2", at(513, 513, 8, depth_multiplier=0.5), *DM05, 2.826e9),
    Row("mobilenet_v2", {"decoder_output_stride": (4,)}, 297, 179, 2_271_109, (255, 1_811_712), 41),
    Row("mobilenet_v3_large_seg", V3_ZOO, 273, 179, 1_507_198, (262, 1_379_184), 51, 7.58e9),
    Row("mobilenet_v3_small_seg", V3_ZOO, 217, 147, 468_830, (206, 390_576), 45, 1.96e9),
    Row("mobilenet_edgetpu", at(513, 513, 32), *EDGETPU, 5.49e9),
    Row("mobilenet_edgetpu", at(513, 513, 16), *EDGETPU, 7.07e9),
    Row("mobilenet_edgetpu", at(513, 513, 32, **SLIM), *EDGETPU_SLIM, 3.40e9),
    Row("mobilenet_edgetpu", at(513, 513, 16, **SLIM), *EDGETPU_SLIM, 4.22e9),
    Row("xception_41", V3PLUS, 492, 296, 28_108_661, (420, 24_920_560), 55),
    Row("xception_65", at(513, 513, **V3PLUS), *XCEPTION_65, 54.05e9),
    Row("xception_65", at(*CITYSCAPES, **V3PLUS), *XCEPTION_65, 418.4e9),
    Row("xception_71", V3PLUS, 802, 482, 43_477_837, (730, 40_289_736), 87),
    Row("xception_71", at(*CITYSCAPES, **V3PLUS, **CELL), 812, 488, 41_609_037, (730, 40_289_736), 87, 501.8e9),
    Row("resnet_v1_18", V3PLUS, 187 - 15, 113 - 9, 12_320_309 + 18_320, (115 - 15, 11_158_192 + 18_320), 33 - 3),
    Row("resnet_v1_18_beta", V3PLUS, 187, 113, 12_320_309, (115, 11_158_192), 33),
    Row("resnet_v1_50", V3PLUS, 337, 203, 26_696_133, (265, 23_508_032), 63),
    Row("resnet_v1_50_beta", V3PLUS, 347, 209, 26_819_909, (275, 23_631_808), 65),
    Row("resnet_v1_101", V3PLUS, 602 - 10, 362 - 6, 45_812_037 - 123_776, (530 - 10, 42_623_936 - 123_776), 116 - 2),
    Row("resnet_v1_101_beta", V3PLUS, 602, 362, 45_812_037, (530, 42_623_936), 116),
    Row("nas_pnasnet", {"decoder_output_stride": (4,)}, 1051, 689, 2_052_661, (1009, 1_553_072), 324),
    Row(
        "nas_hnasnet",
        {"output_stride": 8, "decoder_output_stride": (4,)},
        *(1365, 887, 7_426_677, (1323, 7_030_832), 406),
    ),
    # By hand. VGG-16's thirteen convolutions have 14,714,688 parameters; fc6, fc7 and the logits make of them the 20.5,
    # 65.1 and 134.3 million of arXiv 1412.7062, table 2.
    Row("vgg16", {**V1, "atrous_rates": (12,)}, 32, 32, 20_505_429, (30, 20_483_904), 16),
    Row("vgg16", {**V1, **WIDE, "fc_kernel_size": 4}, 32, 32, 65_140_565, (30, 65_054_528), 16),
    Row("vgg16", {**V1, **WIDE, "fc_kernel_size": 7}, 32, 32, 134_346_581, (30, 134_260_544), 16),
    # MSc: five pairs of 3x3 (963 input channels in all) and 1x1 to 128, and logits of 1024 + 640 channels.
    Row("vgg16", {**V1, "atrous_rates": (12,), "multi_scale_features": True}, 52, 52, 21_711_445, (30, 20_483_904), 26),
    # ASPP: four of fc6 (4,719,616), fc7 (1,049,600) and logits (21,525).
    Row(
        "vgg16",
        {**V1, "atrous_rates": (6, 12, 18, 24)},
        *(50, 50, 14_714_688 + 4 * 5_790_741, (42, 14_714_688 + 4 * 5_769_216), 25),
    ),
    # Keras's MobileNet trains 4,231,976 parameters, 1,025,000 of them in its classifier. ASPP over 1024 channels makes
    # the 11.15M of MobileNetV2's table 7.
    Row("mobilenet_v1", PLAIN_ASPP, 167, 101, 3_206_976 + 7_938_325, (135, 3_206_976), 21),
    # The variables of resnet_v1_101, and DeepLab-v2's four 3x3 convolutions to 21 classes.
    Row("resnet_v1_101_caffe", V2, 528, 320, 42_500_160 + 4 * 387_093, (520, 42_500_160), 108),
    # A unit in a copy of block4 has 4,462,592 parameters and no projection.
    Row("resnet_v1_50", CASCADE, 402, 242, 23_508_032 + 9 * 4_462_592 + 43_029, (400, 63_671_360), 81),
    # bubbliiiing/deeplabv3-plus-pytorch's backbones have the variables of the release's, here with the release's head.
    Row("mobilenet_v2_pytorch", {}, *MNV2),
    Row("xception_65_pytorch", V3PLUS, *XCEPTION_65),
    Row("mobilenet_v2_tf2", {}, *MNV2),
    Row("xception_65_tf2", V3PLUS, *XCEPTION_65),
    # torchvision's weights say 42,004,074 and 60,996,202, with 2,365,205 of an auxiliary classifier.
    Row("resnet_v1_50_pytorch", TORCHVISION, 302, 182, 42_004_074 - 2_365_205, (265, 23_508_032), 61),
    Row("resnet_v1_101_pytorch", TORCHVISION, 557, 335, 60_996_202 - 2_365_205, (520, 42_500_160), 112),
    # Counted by hand: the stem has 464, the five units 2,592, 4,440, 5,032, 9,024 and 18,128.
    Row("tiny", {}, 97, 59, 39_680 + 170_773, (80, 39_680), 15),
    # By hand too: the stem has 696, the blocks 93,792, 374,208 and 701,696. Two kernels of the head are twice as large.
    Row("small_resnet", {}, 97, 59, 1_170_392 + 203_541, (80, 1_170_392), 20),
)
LARGE = ("xception_65", "xception_71", "resnet_v1_101", "nas_")


@pytest.fixture(autouse=True, scope="module")
def _weights_start_at_zero():
    # They are only counted here; drawing them would take most of the time.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "initializer", lambda kind: "zeros")
        yield


def marked(row: Row):
    return pytest.param(row, id=str(row), marks=pytest.mark.heavy if row.variant.startswith(LARGE) else ())


def test_every_architecture_has_a_row():
    assert {row.variant for row in ROWS} == set(ARCHITECTURES), "add a Row, with a figure not counted by this package"


@pytest.mark.parametrize("row", [marked(row) for row in ROWS])
def test_counts_are_those_of_the_release(row):
    model = build_model(row.config, zeros=True)
    cost = model_cost(model)
    assert (cost.variables, cost.trainable_variables, cost.parameters) == (row.variables, row.trainable, row.parameters)
    assert cost.regularized == row.regularized == len(regularized_kernels(model))
    if row.multiply_adds is not None:
        assert cost.multiply_adds == pytest.approx(row.multiply_adds, rel=0.005)
    else:
        assert cost.multiply_adds is None
    backbone = model_cost(model, scope=ARCHITECTURES[row.variant].scope)
    assert (backbone.variables, backbone.parameters) == row.backbone


def small_config(**options) -> ModelConfig:
    return ModelConfig(model_variant="mobilenet_v2", depth_multiplier=0.25, num_classes=3, **options)


@functools.cache
def small_model(**options) -> keras.Model:
    return build_model(small_config(**options), zeros=True)


def test_multiply_adds_by_hand():
    images = keras.Input((9, 7, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="net.conv")(images)  # 5 x 4 positions
    x = keras.layers.BatchNormalization(name="net.norm")(x)
    x = keras.layers.DepthwiseConv2D((1, 3), padding="same", use_bias=False, name="net.depthwise")(x)
    x = keras.layers.Dropout(0.5)(x)  # its seed is state, but no variable of the network
    x = keras.layers.SeparableConv2D(5, 3, padding="valid", use_bias=False, name="head")(x)  # 3 x 2 positions
    model = keras.Model(images, x)
    conv, depthwise, fused = 3 * 3 * 3 * 4, 3 * 4, (9 * 4, 4 * 5)
    assert model_cost(model) == Cost(
        variables=2 + 4 + 1 + 2,
        trainable_variables=2 + 2 + 1 + 2,
        parameters=conv + 4 + 8 + depthwise + sum(fused),
        regularized=3,
        multiply_adds=(conv + depthwise) * 20 + sum(fused) * 6,
    )
    assert model_cost(model, depthwise=True).multiply_adds == depthwise * 20 + fused[0] * 6
    assert model_cost(model, scope="net").multiply_adds == (conv + depthwise) * 20
    assert model_cost(model, scope="net/conv") == Cost(2, 2, conv + 4, 1, conv * 20)


def test_an_image_pyramid_counts_its_weights_once_and_its_work_per_scale():
    whole, pyramid = small_model(crop_size=(65, 65)), small_model(crop_size=(65, 65), image_pyramid=(0.5, 1.0))
    half = small_model(crop_size=(33, 33))
    expected = model_cost(whole).multiply_adds + model_cost(half).multiply_adds
    assert model_cost(pyramid) == dataclasses.replace(model_cost(whole), multiply_adds=expected)


@pytest.mark.heavy
def test_a_model_for_any_size_is_counted_at_a_given_one():
    decoder = {"decoder_output_stride": (4,), "atrous_rates": (2, 3)}
    for options in ({}, decoder, {**decoder, "image_pyramid": (0.5, 1.0)}):
        free = small_model(**options)
        for size in ((65, 65), (97, 129)):
            fixed = model_cost(build_model(small_config(crop_size=size, **options)))
            assert model_cost(free, size=size) == fixed
        assert model_cost(free).multiply_adds is None


def test_the_papers_count_atrous_convolutions_where_tensorflow_1_ran_them():
    images = keras.Input((33, 65, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", dilation_rate=6, use_bias=False)(images)  # 36 x 66 positions
    x = keras.layers.DepthwiseConv2D(3, padding="same", dilation_rate=(2, 3), use_bias=False)(x)  # 34 x 66
    x = keras.layers.Conv2D(5, 1, use_bias=False)(x)
    model, kernels = keras.Model(images, x), (3 * 3 * 3 * 4, 3 * 3 * 4, 4 * 5)
    assert model_cost(model).multiply_adds == sum(kernels) * 33 * 65
    expected = kernels[0] * 36 * 66 + kernels[1] * 34 * 66 + kernels[2] * 33 * 65
    assert model_cost(model, as_profiled=True).multiply_adds == expected


def test_the_papers_count_half_of_what_an_average_pooling_reads():
    images = keras.Input((9, 17, 4))
    x = keras.layers.AveragePooling2D(5, strides=(2, 4))(images)  # 3 x 4 windows
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D(keepdims=True)(x))
    assert model_cost(model).multiply_adds == 0
    assert model_cost(model, as_profiled=True).multiply_adds == (5 * 5 * 3 * 4 * 4 + 3 * 4 * 4) // 2


def test_weights_shared_with_another_model_count_for_the_model_that_asks():
    whole, half = small_model(crop_size=(65, 65)), small_model(crop_size=(33, 33))
    before = model_cost(whole)
    shared = build_model(small_config(crop_size=(33, 33)), share_with=whole)
    assert model_cost(shared) == model_cost(half)
    assert model_cost(whole) == before


def test_a_model_for_any_size_has_no_multiply_adds_but_all_other_counts():
    fixed, free = model_cost(small_model(crop_size=(65, 65))), model_cost(small_model())
    assert free == dataclasses.replace(fixed, multiply_adds=None)


def test_a_scope_is_a_whole_path_component():
    model = small_model(crop_size=(65, 65))
    assert model_cost(model, scope="MobilenetV2/expanded_conv").variables == 10  # not expanded_conv_1, _2, ...
    names = [kernel.path for kernel in regularized_kernels(model, scope="MobilenetV2/expanded_conv_1")]
    assert names == ["MobilenetV2.expanded_conv_1.expand/kernel", "MobilenetV2.expanded_conv_1.project/kernel"]


def test_an_unknown_scope_is_named():
    with pytest.raises(DeepLabError, match="scope='MobilenetV3'.*mobilenet_v2.*MobilenetV2.preprocess"):
        model_cost(small_model(crop_size=(65, 65)), scope="MobilenetV3")
