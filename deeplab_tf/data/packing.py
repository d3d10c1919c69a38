"""What a record stores of a pair of files: the image as it is encoded, and the label as an index PNG; or their faults.

This module does not import TensorFlow, so that worker processes start fast.
"""

import dataclasses
import io
from collections.abc import Iterable

import numpy as np
import PIL.Image

from deeplab_tf.data.encoded_files import read_file, undecoded
from deeplab_tf.data.faults import Fault
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
    encoding: str = ""  # of the label file, in words
    strange: tuple[tuple[int, int], ...] = ()  # index and colour of a label's palette: see `masks.Label`


def pack(pair: Pair, rules: LabelRules) -> Packed | list[Fault]:
    """Returns the contents of the record of a pair, or its faults.

    The image stays as it is encoded, and so does a label that is a plain index PNG; the indices of others are encoded.
    """
    image, size, faults = _checked_image(pair.image)
    label = None
    if pair.label is not None:
        try:
            label = encoded_label(pair.label, pair.label_ids, rules)
            if size and label.classes.shape != size[:2]:
                faults.append(_mismatch(pair, size, label.classes.shape))
        except DeepLabError as error:
            faults.append(Fault.of(error))
    if faults or size is None:
        return faults
    if label is None:
        return Packed(image, None, pair.filename, size[0], size[1], np.zeros(256, np.int64))
    return Packed(
        image, label.png, pair.filename, size[0], size[1], label.counts, encoding=label.encoding, strange=label.strange
    )


def pack_all(pairs: Iterable[Pair], rules: LabelRules) -> list[Packed | list[Fault]]:
    """Returns `pack` of each pair; the task of a worker process."""
    return [pack(pair, rules) for pair in pairs]


def _mismatch(pair: Pair, size: tuple[int, int, bool], shape: tuple[int, int]) -> Fault:
    turned = "; the image's EXIF data turns it, which the release ignores: save it upright" if size[2] else ""
    text = f"{pair.label}: {shape[0]} x {shape[1]} pixels, but {pair.image} has {size[0]} x {size[1]}{turned}"
    return Fault(text, "image and label differ in size")


def _checked_image(file: str) -> tuple[bytes, tuple[int, int, bool] | None, list[Fault]]:
    """Decodes an image; returns its bytes, (height, width, whether EXIF data rotates it) and its faults."""
    content = b""
    try:
        content = read_file(file, "image")
        with PIL.Image.open(io.BytesIO(content)) as image:
            if image.format not in ("JPEG", "MPO", "PNG"):
                text = f"{file}: a {image.format} image; records hold JPEG or PNG, so convert it"
                return content, None, [Fault(text)]
            image.load()
            turned = image.getexif().get(_ORIENTATION, 1) > 4
            return content, (image.height, image.width, turned), []
    except DeepLabError as error:
        return content, None, [Fault.of(error)]
    except PILLOW_ERRORS as error:
        text = f"{file}: no image that can be decoded ({undecoded(error, content)})"
        return content, None, [Fault(text, "damaged image")]
