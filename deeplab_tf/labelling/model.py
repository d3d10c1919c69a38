"""`LabelModel`: what a model says of a picture that is to be labelled: its mask, and what it is unsure of."""

import collections
import dataclasses

import keras
import numpy as np

from deeplab_tf.config import LabelConfig, PredictConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.report.thumbnails import look
from deeplab_tf.inference.measured import Surroundings
from deeplab_tf.inference.runtime import runtime_predictor
from deeplab_tf.inference.tiles import segment_probabilities
from deeplab_tf.labelling.pictures import LabelPicture, Place
from deeplab_tf.labelling.uncertainty import entropy, unsure_places
from deeplab_tf.ops.images import jpeg_bytes, resize_longest
from deeplab_tf.ops.network_pictures import Picture, read_photograph
from deeplab_tf.ops.resizing import resize_bilinear
from deeplab_tf.weights.model_directory import ModelCard

_KEPT = 8  # masks of pictures that were looked at last
_THUMBNAIL = 160  # pixels of its longer side


@dataclasses.dataclass(frozen=True)
class Impression:
    """What is kept of a picture that a model has looked at.

    Attributes:
      score: how unsure the model is, 0..1; 0 without a model.
      look: of the picture, as `thumbnails.look` gives it.
      thumbnail: a small JPEG.
      places: where the model is unsure.
      error: why the picture cannot be read; the rest is empty then.
    """

    score: float
    look: np.ndarray
    thumbnail: bytes
    places: tuple[Place, ...] = ()
    error: str | None = None


class LabelModel:
    """Runs a model on pictures to label. To be used by one thread.

    Args:
      model: the network; None: there is none, and nothing is known of any picture.
      card: of the network; None without one.
      options: runtime and size.
    """

    def __init__(self, model: keras.Model | None, card: ModelCard | None, options: LabelConfig) -> None:
        self._card = card
        self._predict = PredictConfig(resize="none", tf32=options.tf32)
        self._longest = options.shrunk_side(card.training_side if card else None)
        self._predictor = None
        if model is not None:
            self._predictor = runtime_predictor(
                model, options.runtime, pixels=float("inf"), surroundings=Surroundings()
            )
        self._masks: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()

    def prepare(self) -> None:
        """Compiles the network."""
        if self._predictor is not None:
            self._predictor.prepare()

    def read(self, picture: LabelPicture) -> Picture:
        """Returns the photograph, upright. DeepLabError where it cannot be read."""
        return read_photograph(picture.file, self._card.image if self._card else None, name=picture.name)

    def _probabilities(self, photograph: Picture) -> np.ndarray:
        """Returns the classes' probabilities at the size that the network sees, float32 [h, w, classes].

        Photographs are shrunk and never enlarged: to a network, the things in an enlarged one are strange.
        """
        assert self._predictor is not None
        pixels = photograph.pixels
        sized = resize_longest(pixels, self._longest) if max(pixels.shape[:2]) > self._longest else pixels
        return segment_probabilities(self._predictor, sized, self._predict)

    def impression(self, picture: LabelPicture) -> Impression:
        """Returns what is kept of a picture; of one that cannot be read, why."""
        try:
            photograph = self.read(picture)
        except DeepLabError as error:
            return Impression(0.0, np.zeros(0, np.uint8), b"", error=str(error))
        shown = photograph.shown
        small = resize_longest(shown, min(_THUMBNAIL, max(shown.shape[:2])))
        score, places = 0.0, ()
        if self._predictor is not None:
            score, places = unsure_places(entropy(self._probabilities(photograph)))
        return Impression(score, look(small), jpeg_bytes(small, quality=80), places)

    def mask(self, picture: LabelPicture) -> np.ndarray | None:
        """Returns the model's mask at the picture's own size, uint8 [h, w]; None without a model.

        Probabilities, not classes, are brought to that size, so that borders are smooth where pictures are large.
        """
        if self._predictor is None:
            return None
        if picture.name in self._masks:
            self._masks.move_to_end(picture.name)
            return self._masks[picture.name]
        photograph = self.read(picture)
        size = photograph.shown.shape[:2]
        probabilities = self._probabilities(photograph)
        best, mask = np.full(size, -1, np.float32), np.zeros(size, np.uint8)
        for number in range(probabilities.shape[-1]):
            values = resize_bilinear(probabilities[None, ..., number, None], size).numpy()[0, ..., 0]
            np.copyto(mask, np.uint8(number), where=values > best)
            np.maximum(best, values, out=best)
        self._masks[picture.name] = mask
        while len(self._masks) > _KEPT:
            self._masks.popitem(last=False)
        return mask
