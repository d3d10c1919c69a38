"""Every row of the published tables of the DeepLab papers and of the release's zoo, as data.

RESULTS maps a name, <system>/<table>/<row>, to the network as it was evaluated, its published score and cost, and where
these are published. Scores that the papers quote of other systems are left out. `deeplab-tf published --check` builds
the networks and compares; `build_model(RESULTS["v1/table1b/msc-crf-largefov"].config)` builds one.
"""

import dataclasses
from collections.abc import Iterator

from deeplab_tf.errors import DeepLabError
from deeplab_tf.zoo.papers import auto_deeplab, mobilenet_v2, v1, v2, v3, v3plus
from deeplab_tf.zoo.papers.row import CITYSCAPES, CITYSCAPES_SIZE, VOC_SIZE
from deeplab_tf.zoo.papers.row import PublishedResult as PublishedResult
from deeplab_tf.zoo.released import CHECKPOINTS, Released

# Published figures that the release's own graphs, counted, do not give: what they give instead.
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


def _zoo_name(entry: Released, index: int) -> str:
    score = entry.scores[index]
    words = [f"os{score.output_stride}", *(["ms"] if len(score.scales) > 1 else []), *(["flip"] if score.flip else [])]
    words += ["accuracy"] if score.metric != "mIoU" else []
    return f"zoo/{entry.name}/{'-'.join(words)}"


def _zoo_rows() -> Iterator[PublishedResult]:
    """The scores of the released checkpoints (released.py has them). The EdgeTPU's multiply-adds are for 513 x 513."""
    for entry in CHECKPOINTS.values():
        city = entry.dataset == CITYSCAPES and not entry.name.startswith("edgetpu")
        for index, score in enumerate(entry.scores if entry.kind == "segmentation" else ()):
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
                size=CITYSCAPES_SIZE if city else VOC_SIZE,
                unmet=_UNMET.get((entry.name, score.output_stride), ""),
            )


_PAPERS = (v1, v2, v3, v3plus, mobilenet_v2, auto_deeplab)
RESULTS: dict[str, PublishedResult] = {
    row.name: row for rows in (*(paper.ROWS for paper in _PAPERS), _zoo_rows()) for row in rows
}

# One row a system, and the recipe of configs/ that leads to it.
LINEAGE = {
    "DeepLab-v1": ("v1/table1b/msc-crf-largefov", "v1_vgg16_msc"),
    "DeepLab-v2": ("v2/table5/crf-resnet-101", "v2_resnet101_aspp"),
    "DeepLab-v3": ("v3/table7/deeplabv3", "v3_resnet101_trainval"),
    "DeepLab-v3+": ("v3plus/table6/xception-65", "v3plus_xception65_trainval"),
    "Mobile DeepLab-v3": ("mobilenet-v2/table7/os16", "mobilenet_v2_voc"),
}


def find(words: str) -> list[PublishedResult]:
    """Returns the rows whose name, source or settings have all of the space-separated `words`, in any case.

    Raises:
      DeepLabError: no row has them.
    """
    wanted = words.lower().split()
    found = [r for r in RESULTS.values() if all(w in f"{r.name} {r.source} {r.settings}".lower() for w in wanted)]
    if not found:
        systems = ", ".join(sorted({name.partition("/")[0] for name in RESULTS}))
        raise DeepLabError(f"--filter={words!r}: no published row has all of these words; systems are {systems}")
    return found
