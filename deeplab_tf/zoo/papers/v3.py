"""DeepLab-v3 (arXiv 1706.05587).

Its ResNets have the beta stem: only that gives the 58.16M parameters and the multiply-adds that later papers quote.
"""

from collections.abc import Iterable
from typing import Any

from deeplab_tf.config import ModelConfig
from deeplab_tf.zoo.papers.row import (
    CITYSCAPES,
    COCO,
    FLIP,
    JFT,
    MULTI_SCALE,
    Changes,
    PublishedResult,
    Row,
    merged,
    table,
    with_changes,
)

_PAPER = "arXiv 1706.05587"
_CASCADE = ModelConfig(model_variant="resnet_v1_101_beta", output_stride=16, aspp_with_batch_norm=False)
V3 = ModelConfig(
    model_variant="resnet_v1_101_beta",
    output_stride=16,
    atrous_rates=(6, 12, 18),
    aspp_with_separable_conv=False,
    multi_grid=(1, 2, 4),
)
_50: Changes = {"model_variant": "resnet_v1_50_beta"}
AT_8: Changes = {"output_stride": 8, "atrous_rates": V3.at_output_stride(8).atrous_rates}
AT_32: Changes = {"output_stride": 32, "atrous_rates": V3.at_output_stride(32).atrous_rates}
_AT_4: Changes = {"output_stride": 4, "atrous_rates": V3.at_output_stride(4).atrous_rates}
_OS_8: Changes = {"output_stride": 8}
_BLOCK_7: Changes = {"cascade_blocks": 3, "multi_grid": (1, 2, 1)}
_NO_POOLING: Changes = {"add_image_level_feature": False}
_TEST: Changes = {"split": "test", "train_split": "trainval"}
_CITY: Changes = {"dataset": CITYSCAPES, "num_classes": 19, "train_split": "train_fine", "split": "val_fine"}
_CITY_SCALES: Changes = {"scales": (0.75, 1.0, 1.25)}
_CITY_TEST: Changes = {
    "split": "test_fine",
    "train_split": "trainval_coarse",
    "scales": (0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
}

_STRIDES = [
    (f"os{stride}", score, {"output_stride": stride})
    for stride, score in {8: 75.18, 16: 73.88, 32: 70.06, 64: 59.99, 128: 42.34, 256: 20.29}.items()
]


def _blocks(label: str, scores: tuple[float, ...], **changes: Any) -> list[Row]:
    return [(f"{label}-block{4 + n}", score, merged(changes, {"cascade_blocks": n})) for n, score in enumerate(scores)]


_DEPTHS = [
    *_blocks("resnet-50", (64.81, 72.14, 74.29, 73.88), **_50),
    *_blocks("resnet-101", (68.39, 73.21, 75.34, 75.76)),
]
_GRIDS = {
    (1, 1, 1): (68.39, 73.21, 75.34, 75.76),
    (1, 2, 1): (70.23, 75.67, 76.09, 76.66),
    (1, 2, 3): (73.14, 75.78, 75.96, 76.11),
    (1, 2, 4): (73.45, 75.74, 75.85, 76.02),
    (2, 2, 2): (71.45, 74.30, 74.70, 74.62),
}
_GRID_ROWS = [
    row for grid, scores in _GRIDS.items() for row in _blocks(f"mg-{'-'.join(map(str, grid))}", scores, multi_grid=grid)
]
_CASCADE_INFERENCE = (
    ("os16", 76.66),
    ("os8", 78.05, _OS_8),
    ("os8-ms", 78.93, merged(_OS_8, MULTI_SCALE)),
    ("os8-ms-flip", 79.35, merged(_OS_8, MULTI_SCALE, FLIP)),
)
_ASPP = (
    ("mg-1-1-1", 75.36, merged(_NO_POOLING, {"multi_grid": (1, 1, 1)})),
    ("mg-1-2-1", 75.93, merged(_NO_POOLING, {"multi_grid": (1, 2, 1)})),
    ("mg-1-2-4", 76.58, _NO_POOLING),
    ("mg-1-2-4-rate-24", 76.46, merged(_NO_POOLING, {"atrous_rates": (6, 12, 18, 24)})),
    ("mg-1-2-4-image-pooling", 77.21),
)
_INFERENCE = (
    ("os16", 77.21),
    ("os8", 78.51, AT_8),
    ("os8-ms", 79.45, merged(AT_8, MULTI_SCALE)),
    ("os8-ms-flip", 79.77, merged(AT_8, MULTI_SCALE, FLIP)),
    ("os8-ms-flip-coco", 82.70, merged(AT_8, MULTI_SCALE, FLIP, COCO)),
)
_PROTOCOL = (
    ("crop-513-ul-bn", 77.21, {"note": "crop 513, logits up-sampled, batch norm fine-tuned"}),
    ("crop-513-ul", 75.95, {"note": "crop 513, logits up-sampled, batch norm frozen"}),
    ("crop-513-bn", 76.01, {"note": "crop 513, labels down-sampled, batch norm fine-tuned"}),
    ("crop-321-ul-bn", 67.22, {"note": "crop 321, logits up-sampled, batch norm fine-tuned"}),
)
_BATCHES = [
    (f"batch-{size}", score, {"note": f"batch {size}"})
    for size, score in {4: 64.43, 8: 75.76, 12: 76.49, 16: 77.21}.items()
]
_TRAIN_STRIDES = [
    (f"train-os{trained}-os{evaluated}", score, merged({"note": f"trained at OS {trained}"}, changes))
    for evaluated, changes, scores in ((16, {}, (74.45, 77.21, 75.90)), (8, AT_8, (75.62, 78.51, 75.75)))
    for trained, score in zip((8, 16, 32), scores, strict=True)
]
_REPLICAS = [
    (f"replicas-{number}", score, {"note": f"{number} asynchronous replicas"})
    for number, score in {1: 77.21, 2: 77.15, 4: 76.79, 8: 77.02, 16: 77.18, 32: 76.69}.items()
]
_CITY_ROWS = (
    ("os16", 77.23),
    ("os8", 77.82, AT_8),
    ("os8-ms", 79.06, merged(AT_8, _CITY_SCALES)),
    ("os8-ms-flip", 79.30, merged(AT_8, _CITY_SCALES, FLIP)),
)


def _rows(number: int, config: ModelConfig, rows: Iterable[Row], *facts: Changes) -> tuple[PublishedResult, ...]:
    return table(f"v3/table{number}", f"{_PAPER}, table {number}", config, with_changes(rows, *facts))


ROWS: tuple[PublishedResult, ...] = (
    *_rows(1, _CASCADE, _STRIDES, _50, {"cascade_blocks": 3}),
    *_rows(2, _CASCADE, _DEPTHS),
    *_rows(3, _CASCADE, _GRID_ROWS),
    *_rows(4, _CASCADE, _CASCADE_INFERENCE, _BLOCK_7),
    *_rows(5, V3, _ASPP),
    *_rows(6, V3, _INFERENCE),
    *_rows(7, V3, [("deeplabv3", 85.7, COCO), ("deeplabv3-jft", 86.9, JFT)], AT_8, MULTI_SCALE, FLIP, _TEST),
    *_rows(8, V3, _PROTOCOL),
    *_rows(9, V3, _BATCHES),
    *_rows(10, V3, _TRAIN_STRIDES),
    *_rows(11, V3, _REPLICAS),
    *_rows(12, V3, _CITY_ROWS, _CITY),
    *_rows(13, V3, [("deeplabv3", 81.3)], _AT_4, _CITY, FLIP, _CITY_TEST),
)
