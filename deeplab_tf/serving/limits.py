"""`Limits`: how much a request may hold, counted as what the network has to run."""

import dataclasses
import math
from collections.abc import Callable

from deeplab_tf.serving.refusal import Refused


def _as_it_is(height: int, width: int) -> tuple[int, int]:
    return height, width


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much a request may hold.

    Attributes:
      max_pixels: of all its images, each counted as it is decoded or as the network gets it, whichever is more.
      max_images: of one request.
      max_values: numbers and lists in its JSON.
      network_size: the height and width that an image is resized and padded to for the network, or counts as.
    """

    max_pixels: int
    max_images: int = 64
    max_values: int = 8_000_000
    network_size: Callable[[int, int], tuple[int, int]] = _as_it_is

    def pixels(self, height: int, width: int) -> int:
        """Returns the pixels that an image counts as."""
        return max(height * width, math.prod(self.network_size(height, width)))

    def require(self, height: int, width: int, name: str) -> None:
        """Raises Refused (413) for an image of more pixels than are allowed."""
        allowed = max(self.max_pixels, 0)
        if height * width > allowed:
            raise Refused(413, f"{name}: {height * width} pixels; expected at most {allowed}")
        rows, columns = self.network_size(height, width)
        if rows * columns > allowed:
            count = f"{height} x {width} pixels count as {rows} x {columns} for the network, {rows * columns}"
            raise Refused(413, f"{name}: {count}; expected at most {allowed}")

    def without(self, height: int, width: int) -> "Limits":
        """Returns the limits that are left for the other images of a request."""
        return dataclasses.replace(self, max_pixels=self.max_pixels - self.pixels(height, width))
