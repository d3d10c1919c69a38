"""What a row of a published table is, and how the tables of `papers` are written down."""

import dataclasses
from collections.abc import Iterable, Iterator

from deeplab_tf.config import ModelConfig

VOC, CITYSCAPES, ADE20K = "pascal_voc_seg", "cityscapes", "ade20k"
VOC_SIZE, CITYSCAPES_SIZE = (513, 513), (1025, 2049)

# Changes that the tables of several papers share.
CRF, FLIP, MULTI_SCALE = {"crf": True}, {"flip": True}, {"scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)}
COCO = {"pretraining": ("ImageNet", "MS-COCO")}
JFT = {"pretraining": ("ImageNet", "JFT-300M", "MS-COCO")}

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
      scales, flip, crf: evaluated on the image at these scales, also mirrored, refined by the fully connected CRF.
      longest_side: pixels that the longer side of an image is resized to first; None: it is not.
      pretraining, train_split: what it was trained on, in order.
      note: what else tells the row from its neighbours, mostly how it was trained.
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
    metric: str = "mIoU"
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
        """The settings of the evaluation, what came before training beside ImageNet, and the note, in words."""
        parts = [f"OS {self.config.output_stride}"]
        if len(self.scales) > 1:
            parts.append(f"scales {self.scales[0]:g} to {self.scales[-1]:g}")
        parts += [word for word, said in (("flip", self.flip), ("CRF", self.crf)) if said]
        parts += [f"longest side {self.longest_side}"] if self.longest_side else []
        parts += [source for source in self.pretraining if source != "ImageNet"]
        return ", ".join([*parts, self.note] if self.note else parts)


def table(place: str, source: str, config: ModelConfig, rows: Iterable[tuple], **facts) -> tuple[PublishedResult, ...]:
    """Returns the rows of a table, given as (label, score[, changes]).

    `facts` and then the row's `changes` are fields of ModelConfig, for `config`, or of PublishedResult. A row is called
    <place>/<label>.
    """

    def row(label: str, score: float, changes=None) -> PublishedResult:
        values = {**facts, **(changes or {})}
        options = {name: values.pop(name) for name in list(values) if name in _FIELDS}
        return PublishedResult(f"{place}/{label}", source, score, dataclasses.replace(config, **options), **values)

    return tuple(row(*entry) for entry in rows)


def merged(*changes: dict) -> dict:
    """Returns all `changes` in one, the later before the earlier."""
    return {name: value for part in changes for name, value in part.items()}


def each(rows: Iterable[tuple], *changes: dict) -> Iterator[tuple]:
    """Yields `rows` with more changes."""
    for label, score, *own in rows:
        yield label, score, merged(*changes, *own)
