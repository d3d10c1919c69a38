"""What an entry of the zoo is: a released checkpoint and its published scores."""

import dataclasses
from typing import Literal

from deeplab_tf.config import ModelConfig

# The release links to http://download.tensorflow.org/models/. That is a bucket of Google Cloud Storage, which has this
# address for https too.
URL_FOLDER = "https://storage.googleapis.com/download.tensorflow.org/models/"


@dataclasses.dataclass(frozen=True)
class Score:
    """A published score and the settings it was measured with.

    Attributes:
      value: percent of `metric`.
      output_stride, atrous_rates: the network's in the measurement.
      metric: what was measured.
      split: the catalog's name of the split, or "test".
      scales, flip: evaluated on the image at these scales, and on its mirror images.
      multiply_adds: for one image, as published. The two MobileNetV3 figures are about twice what the graph does, hence
        look like FLOPs.
      counted_at: height and width of the image that `multiply_adds` is for; None: of the data set's images.
      longest_side: pixels that the longer side of an image is resized to first; None: it is not.
    """

    value: float
    output_stride: int
    metric: Literal["mIoU", "pixel accuracy"] = "mIoU"
    split: str = "val"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    multiply_adds: float | None = None
    atrous_rates: tuple[int, ...] | None = None
    longest_side: int | None = None
    counted_at: tuple[int, int] | None = None

    def __str__(self) -> str:
        scales = "" if self.scales == (1.0,) else f", scales {_range_text(self.scales)}"
        side = f", longest side {self.longest_side}" if self.longest_side else ""
        flip = ", flip" if self.flip else ""
        return f"{self.value:g} % {self.metric}, {self.split} (OS {self.output_stride}{scales}{flip}{side})"


@dataclasses.dataclass(frozen=True)
class ReleasedCheckpoint:
    """One checkpoint of the zoo.

    Attributes:
      name: the release's name for it (EdgeTPU's in lower case).
      config: the network, at the output stride (and rates) it was trained at. Of a backbone only the variant counts.
      kind: segmentation, backbone (ImageNet or COCO weights to train from) or embedded (part of this package).
      file: the archive below URL_FOLDER; None: embedded.
      dataset: the catalog's name of the data set the segmentation was trained on; None: a backbone.
      train_split: the last split it was trained on.
      pretraining: what it was trained on before, in order.
      scores: as published.
      size: of the archive, as published.
      quantized: whether it also holds the ranges of quantisation-aware training.
      tflite_size: of its 8-bit model, as published.
      sha256: of the archive, if a public source states it for exactly this file.
    """

    name: str
    config: ModelConfig
    kind: Literal["segmentation", "backbone", "embedded"] = "segmentation"
    file: str | None = None
    dataset: str | None = None
    train_split: str | None = None
    pretraining: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()
    size: str = ""
    quantized: bool = False
    tflite_size: str | None = None
    sha256: str | None = None

    @property
    def url(self) -> str | None:
        """Where the archive is published; None: embedded."""
        return URL_FOLDER + self.file if self.file else None

    @property
    def most_bytes(self) -> int | None:
        """Bytes that the archive has at most, by its published size in MB of either kind; None: not published."""
        number = float(self.size.removesuffix("MB")) if self.file and self.size else None
        return None if number is None else int((number + 1) * 1.1 * 2**20)

    def config_for(self, score: Score) -> ModelConfig:
        """Returns the network as `score` was measured: at its output stride and rates."""
        return dataclasses.replace(self.config, output_stride=score.output_stride, atrous_rates=score.atrous_rates)


def _range_text(scales: tuple[float, ...]) -> str:
    """Returns the scales as the release writes them: first:step:last."""
    if len(scales) == 1:
        return f"{scales[0]:g}"
    return f"{scales[0]:g}:{scales[1] - scales[0]:g}:{scales[-1]:g}"
