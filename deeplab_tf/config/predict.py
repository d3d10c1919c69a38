"""PredictConfig: how images are segmented and which files are written. Import it from deeplab_tf.config."""

import dataclasses
from collections.abc import Collection
from typing import Literal, get_args

from deeplab_tf.config.crf import CrfConfig
from deeplab_tf.config.evaluation import Averaging
from deeplab_tf.config.fields import option
from deeplab_tf.config.inference import LONGEST_SIDE, Inference, trained_side
from deeplab_tf.config.serve import RUNTIMES, Runtime
from deeplab_tf.errors import unknown_name

Save = Literal["mask", "overlay", "raw", "cutout", "probabilities", "npz"]
Resize = Literal["auto", "trained", "longest", "letterbox", "none"]
SAVE_CHOICES: tuple[Save, ...] = get_args(Save)
RESIZE_CHOICES: tuple[Resize, ...] = get_args(Resize)
LEAST_PIXELS = 66_049  # 257 x 257, of a tile


@dataclasses.dataclass(frozen=True)
class PredictConfig(CrfConfig, Averaging, group="sizes"):
    """How `predict` segments images, and which files it writes of each.

    The release's eval_scales and add_flipped_images, the resize rule of its demo, and the CRF of DeepLab v1 and v2.
    """

    resize: Resize = option(
        "auto",
        "longest: shrink or enlarge to the longest side first; trained: only where that of the picture is less than "
        "half or more than twice as long; letterbox: longest, and fit into a square of that side, in the middle; none: "
        "keep the size; auto: what the model was trained with, letterbox for those of deeplabv3-plus-pytorch, trained "
        "for those of deeplab-tf train with the side of their pictures; else, or with --longest_side, longest",
    )
    longest_side: int = option(LONGEST_SIDE, "longest side in pixels for --resize=longest, trained and letterbox")
    save: tuple[Save, ...] = option(
        ("mask", "overlay", "raw"),
        f"what to write: {', '.join(SAVE_CHOICES)}; of a clip overlay (alone where --save is not given), mask, raw "
        "and npz (all class maps in one compressed array)",
        group="what",
    )
    every: int = option(1, "of a clip, segment each n-th frame only; the times of those stay", group="clips")
    stabilize: float | None = option(
        None,
        "of a clip, the weight of the frame before, whose class probabilities are carried along the optical flow: 0.6 "
        "for instance, below 1",
        group="clips",
    )
    fps: float | None = option(
        None,
        "take a folder of pictures for the frames of a clip, in the order of their names, at so many a second",
        group="clips",
    )
    max_pixels: int = option(4_200_000, "an image with more pixels (after resizing) is run in overlapping tiles")
    max_image_pixels: int = option(
        178_956_970, "most pixels of an image as it is stored; beyond the default it is taken for damaged"
    )
    runtime: Runtime = option(
        "auto",
        "what runs the network: tf; tf_frozen (the exported graph in TensorFlow: constant weights, batch norms folded "
        "in); tflite (LiteRT with XNNPACK, the extra litert); onnx (ONNX Runtime, the extra "
        "onnx); openvino (the extra openvino); auto: on a processor the fastest of those that are installed, measured "
        "once on each machine, for a number of images that repays it; else tf",
        group="devices",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.runtime not in RUNTIMES:
            raise unknown_name("runtime", self.runtime, RUNTIMES)
        self._require("resize", self.resize in RESIZE_CHOICES, "expected auto, trained, letterbox, longest or none")
        for choice in self.save:
            if choice not in SAVE_CHOICES:
                raise unknown_name("value of save", choice, SAVE_CHOICES)
        self._require_at_least(1, "max_image_pixels")
        self._require_at_least(1, "every")
        self._require("stabilize", self.stabilize is None or 0 <= self.stabilize < 1, "expected 0 to below 1, as 0.6")
        self._require("fps", self.fps is None or 0.01 <= self.fps <= 1000, "expected 0.01 to 1000 frames a second")
        self._require("longest_side", self.longest_side > 0, "expected a number of pixels")
        self._require("max_pixels", self.max_pixels >= LEAST_PIXELS, f"expected at least {LEAST_PIXELS} (257 x 257)")

    def for_model(
        self, letterbox: int | None, training_side: int | None, given: Collection[str] | None = None
    ) -> "PredictConfig":
        """Returns the options with the resize rule that `auto` means for a model; others as they are.

        Args:
          letterbox: the side of the square that the model's photographs were fitted into, or None.
          training_side: the median longest side of the pictures that the model was trained on, or None: not known.
          given: the names of the options that the user gave; None: those that are not at their default.
        """
        if self.resize != "auto":
            return self
        side_is_given = self.longest_side != LONGEST_SIDE if given is None else "longest_side" in given
        side = letterbox or training_side
        if side is None or (side_is_given and not letterbox):
            return dataclasses.replace(self, resize="longest")
        rule: Resize = "letterbox" if letterbox else "trained"
        return dataclasses.replace(self, resize=rule, longest_side=self.longest_side if side_is_given else side)

    def network_side(self, height: int, width: int) -> int:
        """Returns the longest side in pixels that a picture of height x width gets for the network.

        `auto` that `for_model` has not settled is longest.
        """
        longest = max(height, width)
        if self.resize == "trained":
            return trained_side(longest, self.longest_side)
        return longest if self.resize == "none" else self.longest_side

    @property
    def inference(self) -> Inference:
        """How images become classes: scales, flip and CRF. Large images are tiled by `max_pixels` instead."""
        return Inference(self.eval_scales, self.add_flipped_images, crf=self.crf_parameters, tf32=self.tf32)
