"""The released checkpoints as facts (`CHECKPOINTS`): what each is, where it is published, what it scores how.

Source: the release's g3doc/model_zoo.md and g3doc/quantize.md. `deeplab_tf.zoo.lookup` gets the files; importing this
module is cheap.
"""

import dataclasses
from typing import TypedDict

from deeplab_tf.arch.dense_prediction_cell import CITYSCAPES_TOP1
from deeplab_tf.config import ModelConfig
from deeplab_tf.zoo.entry import ReleasedCheckpoint, Score


def _scales(first: float, last: float) -> tuple[float, ...]:
    """Returns the scales that the release writes as first:0.25:last."""
    return tuple(first + 0.25 * i for i in range(round((last - first) / 0.25) + 1))


class _Training(TypedDict):
    """The fields of ReleasedCheckpoint that tell what it was trained on."""

    dataset: str
    train_split: str
    pretraining: tuple[str, ...]


def _trained(dataset: str, train_split: str, *pretraining: str) -> _Training:
    return {"dataset": dataset, "train_split": train_split, "pretraining": pretraining}


def _checkpoint(
    name: str,
    file: str,
    size: str,
    config: ModelConfig,
    *scores: Score,
    training: _Training,
    tflite_size: str | None = None,
    sha256: str | None = None,
) -> ReleasedCheckpoint:
    """Returns a checkpoint of a segmentation; those with a `tflite_size` are the quantised ones."""
    return ReleasedCheckpoint(
        name,
        config,
        file=file,
        **training,
        scores=scores,
        size=size,
        quantized=tflite_size is not None,
        tflite_size=tflite_size,
        sha256=sha256,
    )


def _xception(variant: str, num_classes: int) -> ModelConfig:
    return ModelConfig(
        model_variant=variant,
        num_classes=num_classes,
        output_stride=16,
        atrous_rates=(6, 12, 18),
        decoder_output_stride=(4,),
    )


_TRAIN_AUG = _trained("pascal_voc_seg", "train_aug", "ImageNet", "MS-COCO")
_TRAINVAL = _trained("pascal_voc_seg", "trainval", "ImageNet", "MS-COCO", "VOC 2012 train_aug")
_TRAIN_FINE = _trained("cityscapes", "train_fine", "ImageNet")
_COCO_TRAIN_FINE = _trained("cityscapes", "train_fine", "ImageNet", "MS-COCO")
# The doc says "trainval_fine and coarse set"; the file's name is trainvalfine.
_COCO_TRAINVAL_FINE = _trained("cityscapes", "trainval_fine", "ImageNet", "MS-COCO", "Cityscapes coarse")
_ADE20K_TRAIN = _trained("ade20k", "train", "ImageNet")

_AT_16 = (6, 12, 18)
_AT_8 = (12, 24, 36)
_VOC_SCALES = _scales(0.5, 1.75)
_CITYSCAPES_SCALES = _scales(0.75, 1.25)

_MNV2_VOC = ModelConfig(model_variant="mobilenet_v2", num_classes=21, output_stride=16)
_MNV2_DM05_VOC = dataclasses.replace(_MNV2_VOC, depth_multiplier=0.5)
_X65_VOC = _xception("xception_65", 21)

_PASCAL_VOC = (
    _checkpoint(
        "mobilenetv2_dm05_coco_voc_trainaug",
        "deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01.tar.gz",
        "7.6MB",
        _MNV2_DM05_VOC,
        Score(70.19, 16, multiply_adds=0.88e9),
        training=_TRAIN_AUG,
    ),
    _checkpoint(
        "mobilenetv2_dm05_coco_voc_trainval",
        "deeplabv3_mnv2_dm05_pascal_trainval_2018_10_01.tar.gz",
        "7.6MB",
        _MNV2_DM05_VOC,
        Score(71.83, 8, split="test", multiply_adds=2.84e9),
        training=_TRAINVAL,
    ),
    _checkpoint(
        "mobilenetv2_coco_voc_trainaug",
        "deeplabv3_mnv2_pascal_train_aug_2018_01_29.tar.gz",
        "23MB",
        _MNV2_VOC,
        Score(75.32, 16, multiply_adds=2.75e9),
        Score(77.33, 8, scales=_VOC_SCALES, flip=True, multiply_adds=152.59e9),
        training=_TRAIN_AUG,
        # Stated for this URL by open_model_zoo's models/public/deeplabv3/model.yml of 2019 (23882985 bytes).
        sha256="cd506941e4f88fd053903913761df2e76ea00c01079cecfd35855304a4a5fb48",
    ),
    _checkpoint(
        "mobilenetv2_coco_voc_trainval",
        "deeplabv3_mnv2_pascal_trainval_2018_01_29.tar.gz",
        "23MB",
        _MNV2_VOC,
        Score(80.25, 8, split="test", scales=_VOC_SCALES, flip=True, multiply_adds=152.59e9),
        training=_TRAINVAL,
    ),
    _checkpoint(
        "xception65_coco_voc_trainaug",
        "deeplabv3_pascal_train_aug_2018_01_04.tar.gz",
        "439MB",
        _X65_VOC,
        Score(82.20, 16, atrous_rates=_AT_16, multiply_adds=54.17e9),
        Score(83.58, 8, scales=_VOC_SCALES, flip=True, atrous_rates=_AT_8, multiply_adds=3055.35e9),
        training=_TRAIN_AUG,
    ),
    _checkpoint(
        "xception65_coco_voc_trainval",
        "deeplabv3_pascal_trainval_2018_01_04.tar.gz",
        "439MB",
        _X65_VOC,
        Score(
            87.80,
            8,
            split="test",
            scales=_VOC_SCALES,
            flip=True,
            atrous_rates=_AT_8,
            multiply_adds=3055.35e9,
        ),
        training=_TRAINVAL,
    ),
    _checkpoint(
        "mobilenetv2_dm05_coco_voc_trainaug_8bit",
        "deeplabv3_mnv2_dm05_pascal_train_aug_8bit_2019_04_26.tar.gz",
        "8.2MB",
        _MNV2_DM05_VOC,
        Score(69.65, 16, multiply_adds=0.88e9),
        training=_TRAIN_AUG,
        tflite_size="751.1KB",
    ),
    _checkpoint(
        "mobilenetv2_coco_voc_trainaug_8bit",
        "deeplabv3_mnv2_pascal_train_aug_8bit_2019_04_26.tar.gz",
        "24MB",
        _MNV2_VOC,
        Score(74.26, 16, multiply_adds=2.75e9),
        training=_TRAIN_AUG,
        tflite_size="2.1MB",
    ),
)

_MNV2_CITYSCAPES = dataclasses.replace(_MNV2_VOC, num_classes=19)
# Flags of model_zoo.md. The pooling windows follow from the crop, which is Cityscapes' whole images in evaluation.
_MNV3_LARGE = ModelConfig(
    model_variant="mobilenet_v3_large_seg",
    num_classes=19,
    output_stride=32,
    crop_size=(1025, 2049),
    image_pooling_crop_size=(769, 769),
    image_pooling_stride=(4, 5),
    aspp_convs_filters=128,
    aspp_with_concat_projection=False,
    aspp_with_squeeze_and_excitation=True,
    decoder_use_sum_merge=True,
    decoder_filters=19,
    decoder_output_is_logits=True,
    image_se_uses_qsigmoid=True,
    decoder_output_stride=(8,),
)
_X71_DPC = ModelConfig(
    model_variant="xception_71",
    num_classes=19,
    output_stride=16,
    decoder_output_stride=(4,),
    dense_prediction_cell_json=CITYSCAPES_TOP1,
)
_EDGETPU = dataclasses.replace(_MNV2_CITYSCAPES, model_variant="mobilenet_edgetpu")


def _edgetpu_score(value: float, output_stride: int, *, multiply_adds: float) -> Score:
    """A score on Cityscapes whose multiply-adds are for 513 x 513."""
    return Score(
        value,
        output_stride,
        split="val_fine",
        multiply_adds=multiply_adds,
        counted_at=(513, 513),
    )


_CITYSCAPES = (
    _checkpoint(
        "mobilenetv2_coco_cityscapes_trainfine",
        "deeplabv3_mnv2_cityscapes_train_2018_02_05.tar.gz",
        "23MB",
        _MNV2_CITYSCAPES,
        Score(70.71, 16, split="val_fine", multiply_adds=21.27e9),
        Score(73.57, 8, split="val_fine", scales=_CITYSCAPES_SCALES, flip=True, multiply_adds=433.24e9),
        training=_COCO_TRAIN_FINE,
    ),
    _checkpoint(
        "mobilenetv3_large_cityscapes_trainfine",
        "deeplab_mnv3_large_cityscapes_trainfine_2019_11_15.tar.gz",
        "17MB",
        _MNV3_LARGE,
        Score(72.41, 32, split="val_fine", multiply_adds=15.95e9),
        training=_trained("cityscapes", "train_fine"),
    ),
    _checkpoint(
        "mobilenetv3_small_cityscapes_trainfine",
        "deeplab_mnv3_small_cityscapes_trainfine_2019_11_15.tar.gz",
        "5MB",
        dataclasses.replace(_MNV3_LARGE, model_variant="mobilenet_v3_small_seg"),
        Score(68.99, 32, split="val_fine", multiply_adds=4.63e9),
        training=_trained("cityscapes", "train_fine"),
    ),
    _checkpoint(
        "xception65_cityscapes_trainfine",
        "deeplabv3_cityscapes_train_2018_02_06.tar.gz",
        "439MB",
        _xception("xception_65", 19),
        Score(78.79, 16, split="val_fine", atrous_rates=_AT_16, multiply_adds=418.64e9),
        Score(
            80.42,
            8,
            split="val_fine",
            scales=_CITYSCAPES_SCALES,
            flip=True,
            atrous_rates=_AT_8,
            multiply_adds=8677.92e9,
        ),
        training=_TRAIN_FINE,
    ),
    _checkpoint(
        "xception71_dpc_cityscapes_trainfine",
        "deeplab_cityscapes_xception71_trainfine_2018_09_08.tar.gz",
        "445MB",
        _X71_DPC,
        Score(80.31, 16, split="val_fine", multiply_adds=502.07e9),
        training=_COCO_TRAIN_FINE,
    ),
    _checkpoint(
        "xception71_dpc_cityscapes_trainval",
        "deeplab_cityscapes_xception71_trainvalfine_2018_09_08.tar.gz",
        "446MB",
        _X71_DPC,
        Score(82.66, 8, split="test_fine", scales=_scales(0.75, 2.0), flip=True),
        training=_COCO_TRAINVAL_FINE,
    ),
    _checkpoint(
        "edgetpu_deeplab",
        "edgetpu-deeplab_2020_03_09.tar.gz",
        "",
        _EDGETPU,
        _edgetpu_score(70.6, 32, multiply_adds=5.6e9),
        _edgetpu_score(74.1, 16, multiply_adds=7.1e9),
        training=_TRAIN_FINE,
    ),
    _checkpoint(
        "edgetpu_deeplab_slim",
        "edgetpu-deeplab-slim_2020_03_09.tar.gz",
        "",
        dataclasses.replace(_EDGETPU, depth_multiplier=0.75, aspp_convs_filters=128),
        _edgetpu_score(70.0, 32, multiply_adds=3.5e9),
        _edgetpu_score(73.2, 16, multiply_adds=4.3e9),
        training=_TRAIN_FINE,
    ),
)

_ADE20K = (
    _checkpoint(
        "mobilenetv2_ade20k_train",
        "deeplabv3_mnv2_ade20k_train_2018_12_03.tar.gz",
        "24.8MB",
        dataclasses.replace(_MNV2_VOC, num_classes=151, decoder_output_stride=(4,)),
        Score(32.04, 16, longest_side=257),
        Score(75.41, 16, metric="pixel accuracy", longest_side=257),
        training=_ADE20K_TRAIN,
    ),
    _checkpoint(
        "xception65_ade20k_train",
        "deeplabv3_xception_ade20k_train_2018_05_29.tar.gz",
        "439MB",
        _xception("xception_65", 151),
        Score(45.65, 8, scales=_VOC_SCALES, flip=True, longest_side=513, atrous_rates=_AT_8),
        Score(82.52, 8, metric="pixel accuracy", scales=_VOC_SCALES, flip=True, longest_side=513, atrous_rates=_AT_8),
        training=_ADE20K_TRAIN,
    ),
)


def _backbone(name: str, file: str, size: str, variant: str, *then: str) -> ReleasedCheckpoint:
    config = ModelConfig(model_variant=variant)
    return ReleasedCheckpoint(name, config, kind="backbone", file=file, size=size, pretraining=("ImageNet", *then))


_BACKBONES = (
    _backbone("xception_41_imagenet", "xception_41_2018_05_09.tar.gz", "288MB", "xception_41"),
    _backbone("xception_65_imagenet", "deeplabv3_xception_2018_01_04.tar.gz", "447MB", "xception_65"),
    _backbone(
        "xception_65_imagenet_coco", "xception_65_coco_pretrained_2018_10_02.tar.gz", "292MB", "xception_65", "MS-COCO"
    ),
    _backbone("xception_71_imagenet", "xception_71_2018_05_09.tar.gz", "474MB", "xception_71"),
    _backbone("resnet_v1_50_beta_imagenet", "resnet_v1_50_2018_05_04.tar.gz", "274MB", "resnet_v1_50_beta"),
    _backbone("resnet_v1_101_beta_imagenet", "resnet_v1_101_2018_05_04.tar.gz", "477MB", "resnet_v1_101_beta"),
)

SHAPES_CONFIG = ModelConfig(
    model_variant="small_resnet",
    num_classes=9,
    output_stride=16,
    add_image_level_feature=False,
    aspp_convs_filters=64,
    decoder_output_stride=(4,),
    decoder_filters=64,
)
# Trained by configs/shapes_resnet.py, kept in half precision; scored over the 500 held-out examples.
SHAPES = ReleasedCheckpoint(
    "shapes_resnet",
    SHAPES_CONFIG,
    kind="embedded",
    size="2.4MB",
    scores=(Score(90.39, 16),),
    **_trained("shapes", "train"),
)

CHECKPOINTS: dict[str, ReleasedCheckpoint] = {
    entry.name: entry for entry in (*_PASCAL_VOC, *_CITYSCAPES, *_ADE20K, *_BACKBONES, SHAPES)
}
