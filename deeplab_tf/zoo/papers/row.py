"""What a row of a published table is, and the notation that the tables of `papers` are written in."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from deeplab_tf.config import ModelConfig

# Fields of ModelConfig or of PublishedResult and their values.
Changes = dict[str, Any]
# Label, score, and what sets the row apart from the rest of its table.
Row = tuple[str, float] | tuple[str, float, Changes]

VOC = "pascal_voc_seg"
CITYSCAPES = "cityscapes"
ADE20K = "ade20k"
# Height and width of the images that costs are published for.
VOC_SIZE = (513, 513)
CITYSCAPES_SIZE = (1025, 2049)

# Changes that the tables of several papers share.
CRF: Changes = {"crf": True}
FLIP: Changes = {"flip": True}
MULTI_SCALE: Changes = {"scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)}
COCO: Changes = {"pretraining": ("ImageNet", "MS-COCO")}
JFT: Changes = {"pretraining": ("ImageNet", "JFT-300M", "MS-COCO")}

_FIELDS = {field.name for field in dataclasses.fields(ModelConfig)}


@dataclasses.dataclass(frozen=True)
class PublishedResult:
    """One row of a published table.

    Attributes:
      name: <system>/<table>/<row>.
      source: the paper or page, and the table in it.
      score: in percent, of `metric`.
      config: the network as it was evaluated; for images of any size, unless its multiply-adds depend on a crop.
      dataset, split: what it was evaluated on; PASCAL VOC 2012 unless said.
      scales, flip: evaluated on the image at these scales, and on its mirror images.
      crf: whether the prediction was refined by the fully connected CRF.
      longest_side: pixels that the longer side of an image is resized to first; None: it is not.
      pretraining, train_split: what it was trained on, in order.
      note: what else sets the row apart from its neighbours, mostly how it was trained.
      parameters, multiply_adds: as published; the latter for one image, all scales and mirrored copies together.
      size: height and width of the image that multiply_adds are for, where the configuration has no crop.
      unmet: why our count of a published figure differs from it by more than 1 %.
    """

    name: str
    source: str
    score: float
    config: ModelConfig
    dataset: str = VOC
    split: str = "val"
    metric: Literal["mIoU", "pixel accuracy"] = "mIoU"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    crf: bool = False
    longest_side: int | None = None
    pretraining: tuple[str, ...] = ("ImageNet",)
    train_split: str | None = "train_aug"
    note: str = ""
    parameters: float | None = None
    multiply_adds: float | None = None
    size: tuple[int, int] = VOC_SIZE
    unmet: str = ""

    @property
    def settings(self) -> str:
        """The settings of the evaluation, the pretraining besides ImageNet and the note, separated by commas."""
        parts = [f"OS {self.config.output_stride}"]
        if len(self.scales) > 1:
            parts.append(f"scales {self.scales[0]:g} to {self.scales[-1]:g}")
        if self.flip:
            parts.append("flip")
        if self.crf:
            parts.append("CRF")
        if self.longest_side:
            parts.append(f"longest side {self.longest_side}")
        parts += [source for source in self.pretraining if source != "ImageNet"]
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)


def table(
    prefix: str, source: str, config: ModelConfig, rows: Iterable[Row], **facts: Any
) -> tuple[PublishedResult, ...]:
    """Returns the rows of a table.

    Args:
      prefix: <system>/<table>, before the row's label in its name.
      source: where the table is published.
      config: the network that the rows start from.
      rows: in our notation.
      **facts: changes that all rows share; a row's own come after them.
    """
    results: list[PublishedResult] = []
    for label, score, *own in rows:
        values = merged(facts, *own)
        options = {name: values.pop(name) for name in list(values) if name in _FIELDS}
        network = dataclasses.replace(config, **options)
        results.append(PublishedResult(f"{prefix}/{label}", source, score, network, **values))
    return tuple(results)


def merged(*changes: Changes) -> Changes:
    """Returns all `changes` in one; of two values for one field the later counts."""
    return {name: value for part in changes for name, value in part.items()}


def with_changes(rows: Iterable[Row], *changes: Changes) -> Iterator[Row]:
    """Yields `rows` with more changes; a row's own come after them."""
    for label, score, *own in rows:
        yield label, score, merged(*changes, *own)
