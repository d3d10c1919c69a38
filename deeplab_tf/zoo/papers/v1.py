"""DeepLab-v1 (arXiv 1412.7062). If a row's name says nothing about its field of view, fc6 is 4x4 at rate 4."""

from deeplab_tf.config import ModelConfig
from deeplab_tf.zoo.papers.row import CRF, Changes, PublishedResult, merged, table

_PAPER = "arXiv 1412.7062"
LARGE_FOV = ModelConfig(model_variant="vgg16", output_stride=8, aspp_with_batch_norm=False, atrous_rates=(12,))
_4X4: Changes = {"fc_kernel_size": 4, "fc_filters": 4096, "atrous_rates": (4,)}
_7X7: Changes = merged(_4X4, {"fc_kernel_size": 7})
_MSC: Changes = {"multi_scale_features": True}
# (name, changes of LARGE_FOV, score before and after the CRF); v2's table 1 has both, v1's table 2 the latter.
FIELDS_OF_VIEW: tuple[tuple[str, Changes, float, float], ...] = (
    ("7x7-rate-4", merged(_7X7, {"parameters": 134.3e6}), 64.38, 67.64),
    ("4x4-rate-4", merged(_4X4, {"parameters": 65.1e6}), 59.80, 63.74),
    ("4x4-rate-8", merged(_4X4, {"parameters": 65.1e6, "atrous_rates": (8,)}), 63.41, 67.14),
    ("largefov", {"parameters": 20.5e6}, 62.25, 67.64),
)
_VAL = (
    ("deeplab", 59.80, _4X4),
    ("crf", 63.74, merged(_4X4, CRF)),
    ("msc", 61.30, merged(_4X4, _MSC)),
    ("msc-crf", 65.21, merged(_4X4, _MSC, CRF)),
    ("7x7", 64.38, _7X7),
    ("crf-7x7", 67.64, merged(_7X7, CRF)),
    ("largefov", 62.25),
    ("crf-largefov", 67.64, CRF),
    ("msc-largefov", 64.21, _MSC),
    ("msc-crf-largefov", 68.70, merged(_MSC, CRF)),
)
_TEST = (
    ("crf", 66.4, _4X4),
    ("msc-crf", 67.1, merged(_4X4, _MSC)),
    ("crf-7x7", 70.3, _7X7),
    ("crf-largefov", 70.3),
    ("msc-crf-largefov", 71.6, _MSC),
)
_AFTER_CRF = [(name, after, changes) for name, changes, _, after in FIELDS_OF_VIEW]

ROWS: tuple[PublishedResult, ...] = (
    *table("v1/table1a", f"{_PAPER}, table 1a", LARGE_FOV, _VAL),
    *table(
        "v1/table1b", f"{_PAPER}, tables 1b, 3", LARGE_FOV, _TEST, split="test", train_split="trainval_aug", crf=True
    ),
    *table("v1/table2", f"{_PAPER}, table 2", LARGE_FOV, _AFTER_CRF, crf=True),
)
