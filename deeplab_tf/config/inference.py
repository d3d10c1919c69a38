"""Inference: how images become classes, as one value that is passed whole. Import it from deeplab_tf.config."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

from deeplab_tf.config.fields import Options, option
from deeplab_tf.errors import DeepLabError, unknown_name

LargeImages = Literal["pad", "tile"]
# Pixels: the longest side that photographs are shrunk to, as in the release's demo.
LONGEST_SIDE = 513
LARGE_IMAGES: tuple[LargeImages, ...] = get_args(LargeImages)
SCALES_SEEN = 2  # training shrinks and enlarges by up to this much: by the release's min_ and max_scale_factor


def trained_side(longest: int, trained: int) -> int:
    """Returns the longest side in pixels at which a network sees a picture as it saw those of its training.

    A size that scales of the training reach is kept, as in evaluation.

    Args:
      longest: that of the picture.
      trained: the median of that of the training pictures.
    """
    return longest if trained <= SCALES_SEEN * longest and longest <= SCALES_SEEN * trained else trained


@dataclasses.dataclass(frozen=True)
class Exactness(Options, group="devices"):
    """How exactly a GPU or TPU computes."""

    tf32: bool = option(
        False,
        "let GPUs and TPUs round float32 to TensorFloat-32 or bfloat16, which is faster; without it they give the "
        "published pixels, and a CPU always does",
    )


@dataclasses.dataclass(frozen=True)
class Inference:
    """What is done with a network's logits beyond upsampling them, for one image or a batch.

    `EvalConfig.inference` and `PredictConfig.inference` give it for the commands' options. Values are checked on
    construction; a DeepLabError names field, value and cure.

    Attributes:
      scales: of the input; softmax probabilities at full size are averaged over them (release: eval_scales).
      flip: also average over the horizontally mirrored images (release: add_flipped_images). Unlike the release, it
        also counts where the only scale is 1.
      large_images: images larger than the model's crop_size are run whole (pad) or in overlapping tiles of that size
        (tile), so that memory stays bounded.
      crf: keyword arguments of `crf.densecrf`, by which each image is refined ({}: its defaults); None: no CRF.
      tf32: leaves TensorFlow's switch for TensorFloat-32 as it is; else it is off while the network runs.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    large_images: LargeImages = "pad"
    crf: Mapping[str, float] | None = None
    tf32: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        if not self.scales or min(self.scales) <= 0:
            raise DeepLabError(f"scales={self.scales!r}: expected numbers above 0")
        if self.large_images not in LARGE_IMAGES:
            raise unknown_name("large_images", self.large_images, LARGE_IMAGES)

    @property
    def averages(self) -> bool:
        """Whether probabilities are averaged over scales or flips."""
        return self.scales != (1.0,) or self.flip
