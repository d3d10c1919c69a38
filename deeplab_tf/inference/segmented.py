"""SegmentedImage, the classes of one picture with the pictures and files that can be made of them."""

import dataclasses
import functools
import io
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.ops.images import jpeg_bytes, png_bytes
from deeplab_tf.ops.pictures import Colour, blend, class_shares, colour_mask, palette_png
from deeplab_tf.ops.polygons import rings
from deeplab_tf.ops.sheets import with_legend

Kind = Literal["mask", "overlay", "raw", "probabilities", "outlines", "coco"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclasses.dataclass(frozen=True, eq=False)
class SegmentedImage:
    """The classes of a picture, from a `Segmenter`.

    Attributes:
      image: the picture to look at, uint8 [h, w, 3].
      classes: the index of each pixel's class, int32 [h, w], at the picture's own size.
      class_names, palette: the name and the colour (red, green, blue) of each class, by its index.
      notes: a line for each thing to know of the picture.
    """

    image: np.ndarray
    classes: np.ndarray
    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    notes: tuple[str, ...] = ()
    _run: Callable[[], np.ndarray] | None = dataclasses.field(default=None, repr=False)

    def __repr__(self) -> str:
        height, width = self.classes.shape
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
        return f"SegmentedImage({height} x {width}: {shares})"

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """The probability of each class, float32 [h, w, classes], which sum to 1; the network runs when first asked.

        Where the picture was resized for the network they are enlarged bilinearly, and `classes` to the nearest pixel,
        so that along borders the most probable class may be the neighbour's.
        """
        assert self._run is not None
        return self._run()

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels of each class that occurs, in (0, 1], by its name, the largest first."""
        return {name: share for _, name, share in class_shares(self.classes, self.class_names)}

    @property
    def colours(self) -> np.ndarray:
        """The classes in their colours, uint8 [h, w, 3]."""
        return colour_mask(self.classes, self.palette)

    def overlay(self, *, alpha: float = 0.55, legend: bool = False) -> np.ndarray:
        """Returns the picture tinted in the colours of its classes, uint8 [h, w, 3].

        Args:
          alpha: weight of the colours, 0..1.
          legend: below it, names and shares; then the result is higher, and may be wider.
        """
        mixed = blend(self.image, self.classes, self.palette, alpha=alpha)
        return with_legend(mixed, class_shares(self.classes, self.class_names), self.palette) if legend else mixed

    def outlines(self) -> np.ndarray:
        """Returns the picture with the borders of each class drawn in its colour, uint8 [h, w, 3]."""
        line = max(1, round((self.classes.size**0.5) / 450))
        window = 2 * line + 1
        from scipy import ndimage

        highest = ndimage.maximum_filter(self.classes, window, mode="nearest")
        lowest = ndimage.minimum_filter(self.classes, window, mode="nearest")
        return np.where((highest != lowest)[..., None], self.colours, self.image)

    def to_coco(self, *, file_name: str = "image.jpg", image_id: int = 1) -> dict[str, Any]:
        """Returns the classes as a COCO file of polygons, ready for json.dumps.

        Each class that occurs, the background too, is one annotation, with the polygons of all its parts; they run
        along the edges of pixels, so that drawing them gives the classes back. Category ids are class indices.

        Args:
          file_name: of the picture, as the file names it.
          image_id: of the picture in the file.
        """
        height, width = self.classes.shape
        annotations = []
        for index in np.unique(self.classes).tolist():
            mask = self.classes == index
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            left, top = int(columns[0]), int(rows[0])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": index,
                    "segmentation": [ring.ravel().tolist() for ring in rings(mask)],
                    "area": int(np.count_nonzero(mask)),
                    "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                    "iscrowd": 0,
                }
            )
        return {
            "images": [{"id": image_id, "file_name": file_name, "height": height, "width": width}],
            "annotations": annotations,
            "categories": [{"id": index, "name": name} for index, name in enumerate(self.class_names)],
        }

    def _content(self, kind: Kind, stem: str) -> tuple[str, bytes]:
        """Returns the end of a file's name and its content."""
        if kind == "mask":
            return "mask.png", png_bytes(self.colours)
        if kind == "overlay":
            return "overlay.jpg", jpeg_bytes(self.overlay(legend=True))
        if kind == "outlines":
            return "outlines.png", png_bytes(self.outlines())
        if kind == "raw":
            return "raw.png", palette_png(self.classes, self.palette)
        if kind == "coco":
            return "coco.json", json.dumps(self.to_coco(file_name=f"{stem}.jpg")).encode()
        content = io.BytesIO()
        np.save(content, self.probabilities)
        return "probabilities.npy", content.getvalue()

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        stem: str = "image",
        kinds: Sequence[Kind] = ("mask", "overlay", "raw"),
    ) -> list[files.AnyPath]:
        """Writes files as `deeplab-tf predict` does, `<stem>_mask.png` and so on, and returns their paths.

        Args:
          folder: gets them; it is made.
          stem: the beginning of their names.
          kinds: mask, overlay (with a legend), raw (palette PNG of class indices), probabilities (.npy), outlines and
            coco (.json).

        Raises:
          DeepLabError: an unknown kind, or the folder cannot be written.
        """
        for kind in kinds:
            if kind not in KINDS:
                raise unknown_name("kind of file", kind, KINDS)
        place = files.path(folder)
        written = []
        with files.writing(place):
            place.mkdir(parents=True, exist_ok=True)
            for kind in kinds:
                end, content = self._content(kind, stem)
                target = place / f"{stem}_{end}"
                with files.written(target, durable=False) as file:
                    file.write_bytes(content)
                written.append(target)
        return written


class SegmentedBatch(list[SegmentedImage]):
    """The pictures of a batch: a list, which also gives what all have in one array; DeepLabError where sizes differ."""

    def _stacked(self, name: str) -> np.ndarray:
        sizes = sorted({image.classes.shape for image in self})
        if len(sizes) > 1:
            (height, width), (other, another) = sizes[:2]
            raise DeepLabError(
                f"{name}: the pictures have several sizes, {height} x {width} and {other} x {another} among them; take "
                f"[image.{name} for image in batch]"
            )
        return np.stack([getattr(image, name) for image in self])

    @property
    def classes(self) -> np.ndarray:
        """The classes, int32 [b, h, w]."""
        return self._stacked("classes")

    @property
    def probabilities(self) -> np.ndarray:
        """The probabilities, float32 [b, h, w, classes]."""
        return self._stacked("probabilities")

    @property
    def colours(self) -> np.ndarray:
        """The classes in their colours, uint8 [b, h, w, 3]."""
        return self._stacked("colours")

    @property
    def shares(self) -> list[dict[str, float]]:
        """The shares of each picture."""
        return [image.shares for image in self]
