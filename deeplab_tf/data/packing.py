"""What a record stores of a pair of files: the image as it is encoded, and the label as an index PNG; or their faults.

This module does not import TensorFlow, so that worker processes start fast.
"""

import dataclasses
import io
from collections.abc import Iterable

import numpy as np
import PIL.Image

from deeplab_tf.data.encoded_files import read_file, undecoded
from deeplab_tf.data.masks import LabelRules, encoded_label
from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import PILLOW_ERRORS

_ORIENTATION = 0x0112  # tag of the orientation in EXIF data


@dataclasses.dataclass(frozen=True)
class Packed:
    """The contents of a record: encoded image and label, name and size; and the pixels of each label."""

    image: bytes
    label: bytes | None
    filename: str
    height: int
    width: int
    counts: np.ndarray  # int64 [256]


def pack(pair: Pair, rules: LabelRules) -> Packed | list[str]:
    """Returns the contents of the record of a pair, or one line for each of its faults.

    The image stays as it is encoded, and so does a label that is a plain index PNG; the indices of others are encoded.
    """
    image, size, faults = _checked_image(pair.image)
    label = None
    counts = np.zeros(256, np.int64)
    if pair.label is not None:
        try:
            label, classes = encoded_label(pair.label, pair.label_ids, rules)
            counts = np.bincount(classes.ravel(), minlength=256)
            if size and classes.shape != size[:2]:
                faults.append(_mismatch(pair, size, classes.shape))
        except DeepLabError as error:
            faults.append(str(error))
    if faults or size is None:
        return faults
    return Packed(image, label, pair.filename, size[0], size[1], counts)


def pack_all(pairs: Iterable[Pair], rules: LabelRules) -> list[Packed | list[str]]:
    """Returns `pack` of each pair; the task of a worker process."""
    return [pack(pair, rules) for pair in pairs]


def _mismatch(pair: Pair, size: tuple[int, int, bool], shape: tuple[int, int]) -> str:
    turned = "; the image's EXIF data turns it, which the release ignores: save it upright" if size[2] else ""
    return f"{pair.label}: {shape[0]} x {shape[1]} pixels, but {pair.image} has {size[0]} x {size[1]}{turned}"


def _checked_image(file: str) -> tuple[bytes, tuple[int, int, bool] | None, list[str]]:
    """Decodes an image; returns its bytes, (height, width, whether EXIF data rotates it) and its faults."""
    content = b""
    try:
        content = read_file(file, "image")
        with PIL.Image.open(io.BytesIO(content)) as image:
            if image.format not in ("JPEG", "MPO", "PNG"):
                return content, None, [f"{file}: a {image.format} image; records hold JPEG or PNG, so convert it"]
            image.load()
            turned = image.getexif().get(_ORIENTATION, 1) > 4
            return content, (image.height, image.width, turned), []
    except DeepLabError as error:
        return content, None, [str(error)]
    except PILLOW_ERRORS as error:
        return content, None, [f"{file}: no image that can be decoded ({undecoded(error, content)})"]
