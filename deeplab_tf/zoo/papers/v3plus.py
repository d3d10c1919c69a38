"""DeepLab-v3+ (arXiv 1802.02611).

Its multiply-adds are half the operations that TensorFlow 1's profiler counts (deeplab_tf/network/cost.py).
"""

from collections.abc import Iterable

from deeplab_tf.config import ModelConfig
from deeplab_tf.zoo.papers.row import (
    CITYSCAPES,
    CITYSCAPES_SIZE,
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
from deeplab_tf.zoo.papers.v3 import AT_8, AT_32, V3

_PAPER = "arXiv 1802.02611"
_DECODER: Changes = {"decoder_output_stride": (4,), "decoder_use_separable_conv": False}
_ONE_CONV: Changes = merged(_DECODER, {"decoder_convs": 1})
XCEPTION = ModelConfig(
    model_variant="xception_65", output_stride=16, atrous_rates=(6, 12, 18), aspp_with_separable_conv=False
)
# SC in table 5: separable convolutions in ASPP and decoder.
V3PLUS = ModelConfig(
    model_variant="xception_65", output_stride=16, atrous_rates=(6, 12, 18), decoder_output_stride=(4,)
)
_BOTH: Changes = merged(MULTI_SCALE, FLIP)
_TRAINED_AT_32: Changes = {"note": "trained at OS 32"}
_CITY: Changes = {"dataset": CITYSCAPES, "num_classes": 19, "train_split": "train_fine", "split": "val_fine"}
_NO_GRID: Changes = {
    "unmet": "the figure is that of unit rates (1, 1, 1), 101.2B; with the (1, 2, 4) of the paper's other rows, the "
    "multi-scale ones of the same network among them, it is 102.6B"
}

_PROJECTIONS = [
    (f"channels-{filters}", score, {"decoder_projection_filters": filters})
    for filters, score in {8: 77.61, 16: 77.92, 32: 78.16, 48: 78.21, 64: 77.94}.items()
]
_REFINEMENTS = (
    ("conv2-3x3-256", 78.21, {"decoder_convs": 1}),
    ("conv2-3x3-256-twice", 78.85),
    ("conv2-3x3-256-thrice", 78.02, {"decoder_convs": 3}),
    ("conv2-3x3-128", 77.25, {"decoder_convs": 1, "decoder_filters": 128}),
    ("conv2-1x1-256", 78.07, {"decoder_convs": 1, "decoder_kernel_size": 1}),
    ("conv3-conv2-3x3-256", 78.61, {"decoder_convs": 1, "decoder_output_stride": (8, 4)}),
)
_RESNET = (
    ("os16", 77.21, {"multiply_adds": 81.02e9}),
    ("os8", 78.51, merged(AT_8, {"multiply_adds": 276.18e9})),
    ("os8-ms", 79.45, merged(AT_8, MULTI_SCALE, {"multiply_adds": 2435.37e9})),
    ("os8-ms-flip", 79.77, merged(AT_8, _BOTH, {"multiply_adds": 4870.59e9})),
    ("decoder-os16", 78.85, merged(_DECODER, {"multiply_adds": 101.28e9}, _NO_GRID)),
    ("decoder-os16-ms", 80.09, merged(_DECODER, MULTI_SCALE, {"multiply_adds": 898.69e9})),
    ("decoder-os16-ms-flip", 80.22, merged(_DECODER, _BOTH, {"multiply_adds": 1797.23e9})),
    ("decoder-os8", 79.35, merged(_DECODER, AT_8, {"multiply_adds": 297.92e9})),
    ("decoder-os8-ms", 80.43, merged(_DECODER, AT_8, MULTI_SCALE, {"multiply_adds": 2623.61e9})),
    ("decoder-os8-ms-flip", 80.57, merged(_DECODER, AT_8, _BOTH, {"multiply_adds": 5247.07e9})),
    ("train-os32-os32", 75.43, merged(_TRAINED_AT_32, AT_32, {"multiply_adds": 52.43e9})),
    ("train-os32-decoder-os32", 77.37, merged(_TRAINED_AT_32, _DECODER, AT_32, {"multiply_adds": 74.20e9})),
    ("train-os32-decoder-os16", 77.80, merged(_TRAINED_AT_32, _DECODER, {"multiply_adds": 101.28e9}, _NO_GRID)),
    ("train-os32-decoder-os8", 77.92, merged(_TRAINED_AT_32, _DECODER, AT_8, {"multiply_adds": 297.92e9})),
)
_XCEPTION = (
    ("os16", 79.17, {"multiply_adds": 68.00e9}),
    ("os16-ms", 80.57, merged(MULTI_SCALE, {"multiply_adds": 601.74e9})),
    ("os16-ms-flip", 80.79, merged(_BOTH, {"multiply_adds": 1203.34e9})),
    ("os8", 79.64, merged(AT_8, {"multiply_adds": 240.85e9})),
    ("os8-ms", 81.15, merged(AT_8, MULTI_SCALE, {"multiply_adds": 2149.91e9})),
    ("os8-ms-flip", 81.34, merged(AT_8, _BOTH, {"multiply_adds": 4299.68e9})),
    ("decoder-os16", 79.93, merged(_DECODER, {"multiply_adds": 89.76e9})),
    ("decoder-os16-ms", 81.38, merged(_DECODER, MULTI_SCALE, {"multiply_adds": 790.12e9})),
    ("decoder-os16-ms-flip", 81.44, merged(_DECODER, _BOTH, {"multiply_adds": 1580.10e9})),
    ("decoder-os8", 80.22, merged(_DECODER, AT_8, {"multiply_adds": 262.59e9})),
    ("decoder-os8-ms", 81.60, merged(_DECODER, AT_8, MULTI_SCALE, {"multiply_adds": 2338.15e9})),
    ("decoder-os8-ms-flip", 81.63, merged(_DECODER, AT_8, _BOTH, {"multiply_adds": 4676.16e9})),
)
_SEPARABLE_COSTS = (
    ("os16", {"multiply_adds": 54.17e9}),
    ("os16-ms-flip", merged(_BOTH, {"multiply_adds": 928.81e9})),
    ("os8", merged(AT_8, {"multiply_adds": 177.10e9})),
    ("os8-ms-flip", merged(AT_8, _BOTH, {"multiply_adds": 3055.35e9})),
)
_SEPARABLE = [
    (f"sc{label}-{evaluated}", score, merged(changes, before))
    for label, before, scores in (
        ("", {}, (79.79, 81.21, 80.02, 81.39)),
        ("-coco", COCO, (82.20, 83.34, 82.45, 83.58)),
        ("-jft", JFT, (83.03, 84.22, 83.39, 84.56)),
    )
    for (evaluated, changes), score in zip(_SEPARABLE_COSTS, scores, strict=True)
]
_TEST = (("xception-65", 87.8, COCO), ("xception-65-jft", 89.0, JFT))
_CITY_ROWS = (
    ("x65", 77.33, {"decoder_output_stride": None}),
    ("x65-decoder", 78.79),
    ("x65-decoder-no-pooling", 79.14, {"add_image_level_feature": False}),
    ("x71-decoder-no-pooling", 79.55, {"add_image_level_feature": False, "model_variant": "xception_71"}),
)
_X71: Changes = {"add_image_level_feature": False, "model_variant": "xception_71", "size": CITYSCAPES_SIZE}


def _rows(number: str, config: ModelConfig, rows: Iterable[Row], *facts: Changes) -> tuple[PublishedResult, ...]:
    return table(f"v3plus/table{number}", f"{_PAPER}, table {number}", config, with_changes(rows, *facts))


ROWS: tuple[PublishedResult, ...] = (
    *_rows("1", V3, _PROJECTIONS, _ONE_CONV),
    *_rows("2", V3, _REFINEMENTS, _DECODER),
    *_rows("3", V3, _RESNET),
    *_rows("5", XCEPTION, _XCEPTION),
    *_rows("5", V3PLUS, _SEPARABLE),
    *_rows("6", V3PLUS, _TEST, AT_8, _BOTH, {"split": "test", "train_split": "trainval"}),
    *_rows("7a", V3PLUS, _CITY_ROWS, _CITY),
    *_rows("7b", V3PLUS, [("deeplabv3plus", 82.1)], _X71, _CITY, {"split": "test_fine", "note": "and coarse labels"}),
)
