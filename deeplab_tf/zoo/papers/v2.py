"""DeepLab-v2 (arXiv 1606.00915).

Copies of its tables 6, 7 and 9 as text lack the marks of their columns; the rows' settings are those that the paper's
text gives for the scores. Its ResNet-101 is a Caffe model.
"""

from collections.abc import Iterable

from deeplab_tf.config import ModelConfig
from deeplab_tf.zoo.papers.row import CITYSCAPES, COCO, CRF, Changes, PublishedResult, Row, merged, table, with_changes
from deeplab_tf.zoo.papers.v1 import FIELDS_OF_VIEW, LARGE_FOV

_PAPER = "arXiv 1606.00915"
_RESNET = ModelConfig(model_variant="resnet_v1_101_caffe", output_stride=8, aspp_with_batch_norm=False)
_ASPP_S: Changes = {"atrous_rates": (2, 4, 8, 12)}
_ASPP_L: Changes = {"atrous_rates": (6, 12, 18, 24)}
_MSC: Changes = {"image_pyramid": (0.5, 0.75, 1.0)}
_R_LARGE_FOV: Changes = {"logits_kernel_size": 3, "atrous_rates": (12,)}
_R_ASPP: Changes = {"logits_kernel_size": 3, "atrous_rates": (6, 12, 18, 24)}
_AUG: Changes = {"note": "random scales 0.5 to 1.5"}
_BEST: Changes = merged(_MSC, COCO, _AUG)
_TEST: Changes = {"split": "test", "train_split": "trainval_aug"}
_CONTEXT: Changes = {"dataset": "pascal_context", "num_classes": 60, "train_split": "train"}
_PERSON_PART: Changes = {"dataset": "pascal_person_part", "num_classes": 7, "train_split": "train"}
_CITY: Changes = {"dataset": CITYSCAPES, "num_classes": 19, "train_split": "train_fine", "split": "val_fine"}
_CITY_TEST: Changes = merged(_CITY, CRF, {"split": "test_fine"})
_HALF: Changes = {"note": "images of half the size"}
_FULL: Changes = {"note": "whole images, in overlapping regions"}
_FULL_AUG: Changes = {"note": "whole images, in overlapping regions; random scales"}

_FIELD_OF_VIEW_ROWS = [
    (f"{name}{'-crf' if refined else ''}", score, merged(changes, {"crf": refined}))
    for name, changes, *scores in FIELDS_OF_VIEW
    for refined, score in zip((False, True), scores, strict=True)
]
_POLICIES = (
    ("step-30-6k", 62.25, {"note": "step policy, batch 30, 6K steps"}),
    ("poly-30-6k", 63.42, {"note": "poly policy, batch 30, 6K steps"}),
    ("poly-30-10k", 64.90, {"note": "poly policy, batch 30, 10K steps"}),
    ("poly-10-10k", 64.71, {"note": "poly policy, batch 10, 10K steps"}),
    ("poly-10-20k", 65.88, {"note": "poly policy, batch 10, 20K steps"}),
)
_IN_TEXT = (
    ("largefov-step", 65.1, {"note": "step policy"}),
    ("largefov-poly", 67.7, {"note": "poly policy, batch 10, 20K steps"}),
    ("aspp-l-crf", 72.6, merged(_ASPP_L, CRF)),
)
_ASPP_ROWS = (
    ("largefov", 65.76),
    ("largefov-crf", 69.84, CRF),
    ("aspp-s", 66.98, _ASPP_S),
    ("aspp-s-crf", 69.73, merged(_ASPP_S, CRF)),
    ("aspp-l", 68.96, _ASPP_L),
    ("aspp-l-crf", 71.57, merged(_ASPP_L, CRF)),
)
_RESNET_ROWS = (
    ("resnet-101", 68.72),
    ("msc", 71.27, _MSC),
    ("msc-coco", 73.28, merged(_MSC, COCO)),
    ("msc-coco-aug", 74.87, _BEST),
    ("msc-coco-aug-largefov", 75.54, merged(_BEST, _R_LARGE_FOV)),
    ("msc-coco-aug-aspp", 76.35, merged(_BEST, _R_ASPP)),
    ("msc-coco-aug-aspp-crf", 77.69, merged(_BEST, _R_ASPP, CRF)),
)
_CONTEXT_ROWS = (
    ("resnet-101", 39.6),
    ("msc", 41.4, _MSC),
    ("msc-coco", 42.9, merged(_MSC, COCO)),
    ("largefov", 43.5, merged(_BEST, _R_LARGE_FOV)),
    ("aspp", 44.7, merged(_BEST, _R_ASPP)),
    ("aspp-crf", 45.7, merged(_BEST, _R_ASPP, CRF)),
)
_PERSON_PART_ROWS = (
    ("resnet-101", 58.90),
    ("msc", 63.10, _MSC),
    ("msc-coco", 64.40, merged(_MSC, COCO)),
    ("msc-coco-crf", 64.94, merged(_MSC, COCO, CRF)),
    ("largefov", 62.18, merged(_MSC, COCO, _R_LARGE_FOV)),
    ("aspp", 62.76, merged(_MSC, COCO, _R_ASPP)),
)
_CITY_VGG_ROWS = (
    ("vgg-16-half", 62.97, _HALF),
    ("vgg-16-half-crf", 64.18, merged(_HALF, CRF)),
    ("vgg-16", 64.89, _FULL),
    ("vgg-16-crf", 65.94, merged(_FULL, CRF)),
)
_CITY_ROWS = (
    ("resnet-101", 66.6, _FULL),
    ("largefov", 69.2, merged(_FULL, _R_LARGE_FOV)),
    ("aspp", 70.4, merged(_FULL, _R_ASPP)),
    ("aspp-aug", 71.0, merged(_FULL_AUG, _R_ASPP)),
    ("aspp-aug-crf", 71.4, merged(_FULL_AUG, _R_ASPP, CRF)),
)


def _rows(number: str, config: ModelConfig, rows: Iterable[Row], *facts: Changes) -> tuple[PublishedResult, ...]:
    return table(f"v2/table{number}", f"{_PAPER}, table {number}", config, with_changes(rows, *facts))


ROWS: tuple[PublishedResult, ...] = (
    *_rows("1", LARGE_FOV, _FIELD_OF_VIEW_ROWS),
    *_rows("2", LARGE_FOV, _POLICIES),
    *table("v2/text", f"{_PAPER}, section 4.1.2", LARGE_FOV, _IN_TEXT, **_TEST),
    *_rows("3", LARGE_FOV, _ASPP_ROWS),
    *_rows("4", _RESNET, _RESNET_ROWS),
    *_rows("5", _RESNET, [("crf-resnet-101", 79.7)], _BEST, _R_ASPP, CRF, _TEST),
    *_rows("6", _RESNET, _CONTEXT_ROWS, _CONTEXT),
    *_rows("6", LARGE_FOV, [("vgg-16", 37.6), ("vgg-16-crf", 39.6, CRF)], _CONTEXT),
    *_rows("7", _RESNET, _PERSON_PART_ROWS, _PERSON_PART),
    *_rows("8", LARGE_FOV, [("crf-largefov", 63.1, {"note": "pre-release of the data"})], _CITY_TEST),
    *_rows("8", _RESNET, [("crf-resnet-101", 70.4)], _R_ASPP, _CITY_TEST),
    *_rows("9", LARGE_FOV, _CITY_VGG_ROWS, _CITY),
    *_rows("9", _RESNET, _CITY_ROWS, _CITY),
)
