"""MobileNetV2's table of semantic segmentation (arXiv 1801.04381): networks pretrained on MS-COCO, cheap ones first.

Its MobileNetV2 is read at the last but one layer (320 channels), as in the release. Multiply-adds are counted as
those of DeepLab-v3+ are.
"""

from collections.abc import Iterable

from deeplab_tf.config import ModelConfig
from deeplab_tf.zoo.papers.row import (
    COCO,
    FLIP,
    MULTI_SCALE,
    Changes,
    PublishedResult,
    Row,
    merged,
    table,
    with_changes,
)
from deeplab_tf.zoo.papers.v3 import AT_8, V3

_PAPER = "arXiv 1801.04381, table 7"
_ASPP: Changes = {"atrous_rates": (6, 12, 18), "aspp_with_separable_conv": False}
_AT_8: Changes = {"output_stride": 8}
_BOTH: Changes = merged(MULTI_SCALE, FLIP)
_OTHER_RATES: Changes = {
    "unmet": "the figure is that of rates 12, 18, 24 (940.3B); with 12, 24, 36, twice those at OS 16 as in the other "
    "rows, it is 990.8B"
}

_ROWS = (
    ("mobilenet-v1-os16", 75.29, merged(_ASPP, {"model_variant": "mobilenet_v1", "multiply_adds": 14.25e9})),
    (
        "mobilenet-v1-os8-ms-flip",
        78.56,
        merged(_ASPP, AT_8, _BOTH, {"model_variant": "mobilenet_v1", "multiply_adds": 941.9e9}, _OTHER_RATES),
    ),
    ("aspp-os16", 75.70, merged(_ASPP, {"multiply_adds": 5.8e9})),
    ("aspp-os8-ms-flip", 78.42, merged(_ASPP, AT_8, _BOTH, {"multiply_adds": 387e9})),
    ("os16", 75.32, {"multiply_adds": 2.75e9}),
    ("os8-ms-flip", 77.33, merged(_AT_8, _BOTH, {"multiply_adds": 152.6e9})),
)
_PARAMETERS = (11.15e6, 11.15e6, 4.52e6, 4.52e6, 2.11e6, 2.11e6)
_RESNET = (
    ("resnet-101-os16", 80.49, {"multiply_adds": 81.0e9}),
    ("resnet-101-os8-ms-flip", 82.70, merged(AT_8, _BOTH, {"multiply_adds": 4870.6e9})),
)


def _rows(config: ModelConfig, rows: Iterable[Row], *facts: Changes) -> tuple[PublishedResult, ...]:
    return table("mobilenet-v2/table7", _PAPER, config, with_changes(rows, COCO, *facts))


ROWS: tuple[PublishedResult, ...] = (
    *(
        result
        for row, parameters in zip(_ROWS, _PARAMETERS, strict=True)
        for result in _rows(ModelConfig(), [row], {"parameters": parameters})
    ),
    *_rows(V3, _RESNET, {"parameters": 58.16e6}),
)
