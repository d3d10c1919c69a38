"""Every row of the published tables of the DeepLab papers and of the release's zoo, as data.

RESULTS maps a name, `<system>/<table>/<row>`, to the network as it was evaluated, its published score and cost, and the
source of these. Scores that the papers quote of other systems are left out. `deeplab-tf published --check` builds the
networks and compares.

>>> row = deeplab_tf.published.RESULTS["v3plus/table6/xception-65"]
>>> row.score, row.split, row.config.model_variant, row.config.output_stride
(87.8, 'test', 'xception_65', 8)
>>> row.settings
'OS 8, scales 0.5 to 1.75, flip, MS-COCO'

`deeplab_tf.build_model(row.config)` builds its network.
"""

import dataclasses
from collections.abc import Iterator

from deeplab_tf.errors import DeepLabError
from deeplab_tf.zoo.entry import ReleasedCheckpoint
from deeplab_tf.zoo.papers import auto_deeplab, mobilenet_v2, v1, v2, v3, v3plus
from deeplab_tf.zoo.papers.row import CITYSCAPES, CITYSCAPES_SIZE, VOC_SIZE
from deeplab_tf.zoo.papers.row import PublishedResult as PublishedResult
from deeplab_tf.zoo.released import CHECKPOINTS

# Published multiply-adds that counting the release's own graphs does not give, and what it gives instead.
_TWICE = "the released graph does {}, about half: the figure looks like operations, two for a multiply-add"
_ROUNDED = "the released graph does {} too; the page is coarser than 1 %"
_UNMET = {
    ("mobilenetv3_large_cityscapes_trainfine", 32): _TWICE.format("7.58B"),
    ("mobilenetv3_small_cityscapes_trainfine", 32): _TWICE.format("1.96B"),
    ("edgetpu_deeplab", 32): _ROUNDED.format("5.49B"),
    ("edgetpu_deeplab_slim", 32): _ROUNDED.format("3.40B"),
    ("edgetpu_deeplab_slim", 16): _ROUNDED.format("4.22B"),
    ("mobilenetv2_dm05_coco_voc_trainaug", 16): _ROUNDED.format("0.868B"),
    ("mobilenetv2_dm05_coco_voc_trainaug_8bit", 16): _ROUNDED.format("0.868B"),
}


def _zoo_name(entry: ReleasedCheckpoint, index: int) -> str:
    score = entry.scores[index]
    parts = [f"os{score.output_stride}"]
    if len(score.scales) > 1:
        parts.append("ms")
    if score.flip:
        parts.append("flip")
    if score.metric != "mIoU":
        parts.append("accuracy")
    return f"zoo/{entry.name}/{'-'.join(parts)}"


def _zoo_rows() -> Iterator[PublishedResult]:
    """Yields the scores of `deeplab_tf.zoo.released.CHECKPOINTS`."""
    for entry in CHECKPOINTS.values():
        if entry.kind != "segmentation" or entry.dataset is None:
            continue
        size = CITYSCAPES_SIZE if entry.dataset == CITYSCAPES else VOC_SIZE
        for index, score in enumerate(entry.scores):
            yield PublishedResult(
                name=_zoo_name(entry, index),
                source="the release's g3doc/model_zoo.md and quantize.md",
                score=score.value,
                config=dataclasses.replace(entry.config_for(score), crop_size=None, image_pooling_crop_size=None),
                dataset=entry.dataset,
                split=score.split,
                metric=score.metric,
                scales=score.scales,
                flip=score.flip,
                longest_side=score.longest_side,
                pretraining=entry.pretraining,
                train_split=entry.train_split,
                note="8 bits" if entry.quantized else "",
                multiply_adds=score.multiply_adds,
                size=score.counted_at or size,
                unmet=_UNMET.get((entry.name, score.output_stride), ""),
            )


_PAPERS = (v1, v2, v3, v3plus, mobilenet_v2, auto_deeplab)
RESULTS: dict[str, PublishedResult] = {
    row.name: row for rows in (*(paper.ROWS for paper in _PAPERS), _zoo_rows()) for row in rows
}

# For each system, its best row and the recipe of configs/ that leads to it.
LINEAGE = {
    "DeepLab-v1": ("v1/table1b/msc-crf-largefov", "v1_vgg16_msc"),
    "DeepLab-v2": ("v2/table5/crf-resnet-101", "v2_resnet101_aspp"),
    "DeepLab-v3": ("v3/table7/deeplabv3", "v3_resnet101_trainval"),
    "DeepLab-v3+": ("v3plus/table6/xception-65", "v3plus_xception65_trainval"),
    "Mobile DeepLab-v3": ("mobilenet-v2/table7/os16", "mobilenet_v2_voc"),
}


def find(text: str) -> list[PublishedResult]:
    """Returns the rows whose name, source or settings contain every word of `text`, in upper or lower case.

    Raises:
      DeepLabError: there is no such row.
    """
    words = text.lower().split()
    rows = [r for r in RESULTS.values() if all(w in f"{r.name} {r.source} {r.settings}".lower() for w in words)]
    if not rows:
        systems = ", ".join(sorted({name.partition("/")[0] for name in RESULTS}))
        raise DeepLabError(f"--filter={text!r}: no published row has all of these words; systems are {systems}")
    return rows
