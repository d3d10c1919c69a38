"""Class probabilities of a clip carried along the motion of its pictures, and how much their classes flicker.

The motion is that of OpenCV's DIS optical flow (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_tf.errors import DeepLabError

_STILL = 0.5  # pixels; less is no motion
_SAME_PLACE = 1.0  # pixels; flow there and back that ends farther off is of something that is hidden in one frame
_SAME_GREY = 24  # of 255; what differs more is not the same thing


@dataclasses.dataclass(frozen=True)
class Flicker:
    """Pixels of a clip that stand still from one frame to the next, and those of them that change their class.

    Attributes:
      still: all of them.
      before: that change in what the network says.
      after: that change in what is stabilised.
    """

    still: int = 0
    before: int = 0
    after: int = 0

    def __add__(self, other: "Flicker") -> "Flicker":
        return Flicker(self.still + other.still, self.before + other.before, self.after + other.after)

    def describe(self) -> str:
        """Returns the scores in percent."""
        if not self.still:
            return "flicker: no pixel stands still from one frame to the next"
        shares = [100 * changed / self.still for changed in (self.before, self.after)]
        return f"flicker {shares[0]:.2f} % of the pixels that stand still, {shares[1]:.2f} % when stabilised"


def require_flow() -> Any:
    """Returns the module of OpenCV. DeepLabError: it is not installed."""
    try:
        import cv2
    except ImportError:
        raise DeepLabError("--stabilize needs OpenCV: pip install 'deeplab_tf[video]'") from None
    return cv2


@dataclasses.dataclass(frozen=True)
class Motion:
    """How a frame's picture follows from that of the frame before; found without the network.

    Attributes:
      grey: the picture, uint8 [h, w].
      places: where each pixel was, float32 [h, w, 2], columns and rows.
      trusted: bool [h, w], whether that is the same thing; of the first frame nowhere.
      still: bool [h, w], whether it stands still.
    """

    grey: np.ndarray
    places: np.ndarray
    trusted: np.ndarray
    still: np.ndarray


class MotionFinder:
    """Finds the motion from each frame to the next, in their order.

    Where the flow there and back disagrees, leaves the picture, or joins what does not look alike, it is not trusted:
    something new has come into sight.

    Args:
      before: grey picture of the frame before the first, uint8 [h, w]; None: there is none.
    """

    def __init__(self, before: np.ndarray | None = None):
        self._cv2, self._before = require_flow(), before
        self._flow = self._cv2.DISOpticalFlow_create(self._cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, pixels: np.ndarray) -> Motion:
        """Returns the motion to the next frame, uint8 [h, w, 3]."""
        grey, before = self._cv2.cvtColor(pixels, self._cv2.COLOR_RGB2GRAY), self._before
        height, width = grey.shape
        own = np.stack(np.meshgrid(*(np.arange(side, dtype=np.float32) for side in (width, height))), axis=-1)
        self._before = grey
        if before is None:
            return Motion(grey, own, *np.zeros((2, height, width), bool))
        back, forth = self._flow.calc(grey, before, None), self._flow.calc(before, grey, None)
        places = own + back
        columns, rows = places[..., 0], places[..., 1]
        inside = (columns >= 0) & (rows >= 0) & (columns <= width - 1) & (rows <= height - 1)
        returned = _length(back + _moved(self._cv2, forth, places)) < _SAME_PLACE
        there = _moved(self._cv2, before.astype(np.float32), places)
        trusted = inside & returned & (np.abs(there - grey) < _SAME_GREY)
        return Motion(grey, places, trusted, trusted & (_length(back) < _STILL))


def _moved(cv2: Any, maps: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns maps float32 [h, w] or [h, w, 2] as they are at `places`."""
    return cv2.remap(maps, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _length(flow: np.ndarray) -> np.ndarray:
    """Returns the lengths [h, w] of vectors [h, w, 2]."""
    columns, rows = flow[..., 0], flow[..., 1]
    return np.sqrt(columns * columns + rows * rows)


class _Largest:
    """The first class with the largest probability at each pixel, of classes that come one after the other."""

    def __init__(self, shape: tuple[int, int]):
        self.labels, self._largest = np.zeros(shape, np.int32), np.zeros(shape, np.float32)

    def add(self, index: int, plane: np.ndarray) -> None:
        """Takes the probabilities of a class, float32 [h, w]."""
        np.copyto(self.labels, index, where=plane > self._largest)
        np.maximum(self._largest, plane, out=self._largest)


class Stabilizer:
    """Averages each frame's probabilities with those of the frame before, moved to where things are now.

    Where the motion is not trusted, a frame keeps its own.

    Args:
      weight: of what is carried along, 0 to below 1.
      state: of another's, to go on from.
    """

    def __init__(self, weight: float, state: Mapping[str, np.ndarray] | None = None):
        self._cv2, self._weight, self._state = require_flow(), weight, dict(state) if state else None
        if self._state is not None:
            self._state["probabilities"] = self._planes(self._state["probabilities"])

    def _planes(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns probabilities [h, w, classes] one class after the other, [classes, h, w]."""
        height, width, classes = probabilities.shape
        return self._cv2.transpose(probabilities.reshape(-1, classes)).reshape(classes, height, width)

    @property
    def state(self) -> dict[str, np.ndarray]:
        """What the next frame needs of this one."""
        if self._state is None:
            return {}
        return self._state | {"probabilities": np.moveaxis(self._state["probabilities"], 0, -1)}

    def __call__(self, motion: Motion, probabilities: np.ndarray) -> tuple[np.ndarray, Flicker]:
        """Returns the classes of the next frame, int32 [h, w], and how they flicker.

        Args:
          motion: from the frame before, if there has been one.
          probabilities: the network's, float32 [h, w, classes].
        """
        planes, own, flicker = self._planes(probabilities), _Largest(motion.grey.shape), Flicker()
        if self._state is None:
            for index, plane in enumerate(planes):
                own.add(index, plane)
            labels = own.labels
        else:
            labels = self._mixed(planes, own, motion, self._state["probabilities"])
            still, pairs = motion.still, (("own", own.labels), ("labels", labels))
            changes = [now[still] != self._state[name][still] for name, now in pairs]
            flicker = Flicker(int(np.count_nonzero(still)), *(int(np.count_nonzero(change)) for change in changes))
        self._state = {"grey": motion.grey, "probabilities": planes, "own": own.labels, "labels": labels}
        return labels, flicker

    def _mixed(self, planes: np.ndarray, own: _Largest, motion: Motion, before: np.ndarray) -> np.ndarray:
        """Returns the classes of `planes` [classes, h, w] mixed, in their place, with those of the frame before.

        `own` gets the planes as they were. It goes class by class, because one plane stays in the cache.
        """
        mixed = _Largest(motion.grey.shape)
        carried = np.multiply(motion.trusted, np.float32(self._weight), dtype=np.float32)
        kept = 1 - carried
        for index, plane in enumerate(planes):
            own.add(index, plane)
            moved = _moved(self._cv2, before[index], motion.places)
            plane *= kept
            plane += np.multiply(carried, moved, out=moved)
            mixed.add(index, plane)
        return mixed.labels
