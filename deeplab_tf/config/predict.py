"""PredictConfig: how images are segmented and what is written of them. Import it from deeplab_tf.config."""

import dataclasses

from deeplab_tf.config.crf import CrfConfig
from deeplab_tf.config.evaluation import Averaging
from deeplab_tf.config.fields import option
from deeplab_tf.config.inference import Inference
from deeplab_tf.config.serve import RUNTIMES
from deeplab_tf.errors import unknown_name

SAVE_CHOICES = ("mask", "overlay", "raw", "probabilities")


RESIZE_CHOICES = ("longest", "none")


@dataclasses.dataclass(frozen=True)
class PredictConfig(CrfConfig, Averaging):
    """What `predict` does with images: the release's eval_scales and add_flipped_images, the demo's resize rule, and
    the CRF of DeepLab v1 and v2."""

    resize: str = option("longest", "longest: shrink or enlarge to the longest side first; none: keep the size")
    longest_side: int = option(513, "longest side in pixels for --resize=longest")
    save: tuple[str, ...] = option(("mask", "overlay", "raw"), "what to write: " + ", ".join(SAVE_CHOICES))
    max_pixels: int = option(4_200_000, "an image with more pixels (after resizing) is run in overlapping tiles")
    runtime: str = option(
        "auto",
        "what runs the network: tf; tflite (LiteRT with XNNPACK, the extra litert); auto: on a processor, and for so "
        "many images that converting pays, tflite where it is installed, else tf",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.runtime not in RUNTIMES:
            raise unknown_name("runtime", self.runtime, RUNTIMES)
        self._require("resize", self.resize in RESIZE_CHOICES, "expected longest or none")
        for choice in self.save:
            if choice not in SAVE_CHOICES:
                raise unknown_name("value of save", choice, SAVE_CHOICES)
        self._require("longest_side", self.longest_side > 0, "expected a number of pixels")
        self._require("max_pixels", self.max_pixels >= 66_049, "expected at least 66049 (257 x 257)")

    @property
    def inference(self) -> Inference:
        """How images become classes: scales, flip and CRF. Large images are tiled by `max_pixels` instead."""
        return Inference(self.eval_scales, self.add_flipped_images, crf=self.crf_parameters)
