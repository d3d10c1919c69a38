"""Auto-DeepLab (arXiv 1901.02985): a searched network, trained from scratch, with F = 20, 32 or 48 filters.

Its ASPP and decoder are plain convolutions: only these give its 10.15M, 21.62M and 44.42M parameters. Its image pooling
has the window of the training crop, 769 x 769, all over a whole picture: only this gives its multiply-adds, counted as
DeepLab-v3+'s are.
"""

from collections.abc import Iterable

from deeplab_tf.config import ModelConfig
from deeplab_tf.zoo.papers.row import (
    ADE20K,
    CITYSCAPES,
    CITYSCAPES_SIZE,
    Changes,
    PublishedResult,
    Row,
    merged,
    table,
    with_changes,
)

_PAPER = "arXiv 1901.02985"
S = ModelConfig(
    model_variant="nas_hnasnet",
    output_stride=8,
    atrous_rates=(12, 24, 36),
    aspp_with_separable_conv=False,
    decoder_output_stride=(4,),
    decoder_use_separable_conv=False,
    nas_stem_output_num_conv_filters=20,
)
_X71 = ModelConfig(
    model_variant="xception_71", output_stride=8, atrous_rates=(12, 24, 36), decoder_output_stride=(4,), num_classes=19
)
_M: Changes = {"nas_stem_output_num_conv_filters": 32}
_L: Changes = {"nas_stem_output_num_conv_filters": 48}
_SCRATCH: Changes = {"pretraining": ()}
_COCO: Changes = {"pretraining": ("MS-COCO",)}
_CITY: Changes = {
    "dataset": CITYSCAPES,
    "num_classes": 19,
    "train_split": "train_fine",
    "split": "val_fine",
    "crop_size": CITYSCAPES_SIZE,
    "image_pooling_crop_size": (769, 769),
}
_SEVERAL: Changes = {"note": "several scales"}  # the paper does not say which
_COARSE: Changes = {"note": "several scales, and coarse labels"}
_SIZES = (
    ("s", 79.74, {"parameters": 10.15e6, "multiply_adds": 333.25e9, "note": "scheduled drop path"}),
    ("m", 80.04, merged(_M, {"parameters": 21.62e6, "multiply_adds": 460.93e9})),
    ("l", 80.33, merged(_L, {"parameters": 44.42e6, "multiply_adds": 695.03e9})),
)
_V3PLUS = (("deeplabv3plus-x71", 79.55, {"parameters": 43.48e6, "multiply_adds": 1551.05e9}),)
_STEPS = (
    ("s-500k", 75.20, {"note": "500K steps"}),
    ("s-1m", 77.09, {"note": "1M steps"}),
    ("s-1.5m", 78.00, {"note": "1.5M steps"}),
    ("s-1.5m-drop-path", 79.74, {"note": "1.5M steps, scheduled drop path"}),
)
_CITY_TEST = (
    ("s", 79.9),
    ("l", 80.4, _L),
    ("s-coarse", 80.9, _COARSE),
    ("l-coarse", 82.1, merged(_L, _COARSE)),
)
_VOC = [
    (f"{name}{label}{'-ms' if several else ''}", score, merged(size, before, _SEVERAL if several else {}))
    for label, before, scores in (
        ("", _SCRATCH, ((71.68, 72.54), (72.78, 73.69), (73.76, 75.26))),
        ("-coco", _COCO, ((78.31, 80.27), (79.78, 80.73), (80.75, 82.04))),
    )
    for (name, size), pair in zip((("s", {}), ("m", _M), ("l", _L)), scores, strict=True)
    for several, score in zip((False, True), pair, strict=True)
]
_VOC_TEST = (("s", 82.5), ("m", 84.1, _M), ("l", 85.6, _L))
_ADE = [
    (f"{name}-{label}", score, merged(size, {"metric": metric}))
    for name, size, *scores in (("s", {}, 40.69, 80.60), ("m", _M, 42.19, 81.09), ("l", _L, 43.98, 81.72))
    for label, metric, score in zip(("miou", "accuracy"), ("mIoU", "pixel accuracy"), scores, strict=True)
]


def _rows(number: int, config: ModelConfig, rows: Iterable[Row], *facts: Changes) -> tuple[PublishedResult, ...]:
    return table(f"auto-deeplab/table{number}", f"{_PAPER}, table {number}", config, with_changes(rows, *facts))


ROWS: tuple[PublishedResult, ...] = (
    *_rows(2, S, _SIZES, _SCRATCH, _CITY),
    *_rows(2, _X71, _V3PLUS, _CITY),
    *_rows(3, S, _STEPS, _SCRATCH, _CITY),
    *_rows(4, S, _CITY_TEST, _SCRATCH, _CITY, _SEVERAL, {"split": "test_fine"}),
    *_rows(5, S, _VOC),
    *_rows(6, S, _VOC_TEST, _COCO, {"split": "test", "train_split": "trainval"}),
    *_rows(7, S, _ADE, _SCRATCH, _SEVERAL, {"dataset": ADE20K, "num_classes": 151, "train_split": "train"}),
)
