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


class Stabilizer:
    """Averages each frame's probabilities with those of the frame before, moved to where things are now.

    Where the flow there and back disagrees, leaves the picture, or joins what does not look alike, a frame keeps its
    own: something new has come into sight.

    Args:
      weight: of what is carried along, 0 to below 1.
      state: of another's, to go on from.
    """

    def __init__(self, weight: float, state: Mapping[str, np.ndarray] | None = None):
        self._cv2, self._weight = require_flow(), weight
        self._flow = self._cv2.DISOpticalFlow_create(self._cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._state = dict(state) if state else None

    @property
    def state(self) -> dict[str, np.ndarray]:
        """What the next frame needs of this one."""
        return dict(self._state or {})

    def _moved(self, maps: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Returns maps [h, w, c] as they are at `places`, float32 [h, w, 2], columns and rows, 4 at once."""
        linear, edge = self._cv2.INTER_LINEAR, self._cv2.BORDER_REPLICATE
        parts = [maps[..., start : start + 4] for start in range(0, maps.shape[-1], 4)]
        moved = [self._cv2.remap(np.ascontiguousarray(part), places, None, linear, borderMode=edge) for part in parts]
        return np.concatenate([part.reshape(*maps.shape[:2], -1) for part in moved], axis=-1)

    def _motion(self, grey: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns where each pixel was, whether that is to be trusted, and whether it stands still."""
        height, width = grey.shape
        back, forth = self._flow.calc(grey, before, None), self._flow.calc(before, grey, None)
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        places = np.stack([columns + back[..., 0], rows + back[..., 1]], axis=-1)
        inside = (places >= 0).all(-1) & (places[..., 0] <= width - 1) & (places[..., 1] <= height - 1)
        returned = np.linalg.norm(back + self._moved(forth, places), axis=-1) < _SAME_PLACE
        there = self._moved(before[..., None].astype(np.float32), places)[..., 0]
        trusted = inside & returned & (np.abs(there - grey) < _SAME_GREY)
        return places, trusted, trusted & (np.linalg.norm(back, axis=-1) < _STILL)

    def __call__(self, pixels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, Flicker]:
        """Returns the classes of the next frame, int32 [h, w], and how they flicker.

        Args:
          pixels: uint8 [h, w, 3].
          probabilities: the network's, float32 [h, w, classes].
        """
        grey = self._cv2.cvtColor(pixels, self._cv2.COLOR_RGB2GRAY)
        own, flicker = probabilities.argmax(-1).astype(np.int32), Flicker()
        mixed, labels = probabilities, own
        if self._state is not None:
            places, trusted, still = self._motion(grey, self._state["grey"])
            weight = (self._weight * trusted).astype(np.float32)[..., None]
            mixed = (1 - weight) * probabilities + weight * self._moved(self._state["probabilities"], places)
            labels = mixed.argmax(-1).astype(np.int32)
            changes = [now[still] != self._state[name][still] for name, now in (("own", own), ("labels", labels))]
            flicker = Flicker(int(still.sum()), *(int(change.sum()) for change in changes))
        self._state = {"grey": grey, "probabilities": mixed, "own": own, "labels": labels}
        return labels, flicker
