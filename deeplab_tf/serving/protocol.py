"""Requests and answers of TensorFlow Serving's REST interface, for the signatures of the exported SavedModels.

`serving_default` takes ImageTensor, uint8 [b, h, w, 3]; `image_bytes` takes encoded pictures as {"b64": "..."}. Both
come in the row form ("instances") or in the columnar form ("inputs"). Source: TensorFlow Serving's documentation of its
REST API.
"""

import base64
import binascii
import dataclasses
import itertools
import json
import re
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.config.export import INPUT, LABEL_BEYOND, OUTPUTS
from deeplab_tf.ops.network_pictures import contrast_notes
from deeplab_tf.ops.value_range import scaled
from deeplab_tf.serving.answers import json_numbers
from deeplab_tf.serving.limits import Limits
from deeplab_tf.serving.pictures import decode_picture
from deeplab_tf.serving.refusal import Refused

_DEFAULT = "serving_default"
_ENCODED = "image_bytes"
_PREDICTIONS = OUTPUTS["predictions"]
NOTES = "x-deeplab-notes"
_MOST_NOTES = 8  # in a header: clients and proxies take 8 KB of them at least
_DEEPEST = 128  # lists and objects within one another, of which a request needs 7
_JSON_TYPES = {str: "texts", bool: "true or false", type(None): "null", list: "lists", dict: "objects"}
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


@dataclasses.dataclass(frozen=True)
class PredictRequest:
    """The contents of a :predict request.

    Attributes:
      images: uint8 [h, w, 3] each, or float32 [h, w, channels] in 0..255.
      encoded: whether they came as encoded pictures.
      rows: whether the request has the row form, which its answer must have too.
      notes: a line for each thing that the user should know of an image, which begins with the image's number.
    """

    images: tuple[np.ndarray, ...]
    encoded: bool
    rows: bool
    notes: tuple[str, ...] = ()


def _require_modest(body: bytes, max_values: int) -> None:
    """Raises Refused where JSON is nested deeper, or holds more, than a request needs, before it is parsed."""
    marks = np.frombuffer(_TEXT.sub(b"", body), np.uint8)
    opens = (marks == ord("[")) | (marks == ord("{"))
    closes = (marks == ord("]")) | (marks == ord("}"))
    depth = np.cumsum(opens.astype(np.int8) - closes.astype(np.int8), dtype=np.int32).max(initial=0)
    if depth > _DEEPEST:
        raise Refused(400, f"the body is not JSON of a request (nested {depth} deep; expected at most {_DEEPEST})")
    count = int(opens.sum()) + int((marks == ord(",")).sum())
    if count > max_values:
        raise Refused(413, f"more than {max_values} numbers and lists in the body; expected encoded images for as many")


def _parse_object(body: bytes, max_values: int) -> dict:
    _require_modest(body, max_values)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON ({str(error)[:100]})") from None
    if not isinstance(value, dict):
        raise Refused(400, f"the body is a JSON {type(value).__name__}; expected an object")
    return value


def _is_encoded(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"}


def _split_name(value: object) -> tuple[str | None, object]:
    """Returns the name and the value of {"ImageTensor": value}; None and the value if it has no name."""
    if not isinstance(value, dict) or _is_encoded(value):
        return None, value
    if len(value) != 1 or not set(value) <= {INPUT, _ENCODED}:
        raise Refused(400, f"inputs named {str(sorted(value)[:5])[:80]}; expected {INPUT} or {_ENCODED}")
    return next(iter(value.items()))


def _content(value: Any) -> bytes:
    """Returns the bytes of {"b64": "..."}."""
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise Refused(400, f"b64: not base64 ({error})") from None


def _pixels(value: object, image: ImageFacts | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns nested lists of numbers as uint8 [h, w, 3], or float32 [h, w, channels] where the model has `image`.

    With them comes a line for each thing that the user should know.
    """
    channels = image.channels if image else 3
    numbers = "whole numbers in 0..255" if image is None else f"the stored values ({image.dtype})"
    expected = f"{INPUT}: expected lists of {numbers} with the shape [height, width, {channels}]"
    try:
        # With a dtype: without one, texts in the lists would become an array in which each takes the memory of the
        # longest.
        array = np.asarray(value, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        ragged = "; these have rows of several lengths" if "inhomogeneous" in str(error) else ""
        raise Refused(400, f"{expected}{ragged}") from None
    if array.ndim != 3 or array.shape[-1] != channels or not array.size:
        raise Refused(400, f"{expected}; these have the shape {list(array.shape)}")
    flat = itertools.chain.from_iterable(itertools.chain.from_iterable(cast("list[list[list[object]]]", value)))
    others = set(map(type, flat)) - {int, float}
    if others:  # NumPy makes numbers of texts, and of true and false
        raise Refused(400, f"{expected}; these hold {', '.join(sorted(_JSON_TYPES[kind] for kind in others))}")
    if image is not None:
        values = scaled(image, array)
        return values, contrast_notes(image, array, values)
    if not (array.min() >= 0 and array.max() <= 255 and (array == np.floor(array)).all()):
        raise Refused(400, f"{expected}; these are {array.min():g} to {array.max():g}")
    return array.astype(np.uint8), ()


def _values(request: dict) -> tuple[list[tuple[str | None, object]], bool]:
    """Returns the (name, value) of each image, and whether the request has the row form."""
    if ("instances" in request) == ("inputs" in request):
        raise Refused(400, 'expected either "instances" or "inputs"')
    rows = "instances" in request
    if rows:
        name = None
        values = request["instances"]
    else:
        name, values = _split_name(request["inputs"])
        values = [values] if _is_encoded(values) else values
    if not isinstance(values, list) or not values:
        raise Refused(400, f'"{"instances" if rows else "inputs"}": expected a list of at least one image')
    if rows:
        return [_split_name(value) for value in values], rows
    return [(name, value) for value in values], rows


def parse_request(body: bytes, limits: Limits, *, image: ImageFacts | None = None) -> PredictRequest:
    """Returns the contents of the body of a :predict request.

    Args:
      body: of the request.
      limits: of its images and of its JSON.
      image: what the photographs are that the model reads; None: 8-bit RGB.

    Raises:
      Refused: 400 if the body is not a valid request, 413 if it holds more than the limits allow.
    """
    request = _parse_object(body, limits.max_values)
    pairs, rows = _values(request)
    if len(pairs) > limits.max_images:
        raise Refused(413, f"{len(pairs)} images; expected at most {limits.max_images} in a request")
    kinds = {_is_encoded(value) for _, value in pairs}
    if len(kinds) > 1:
        raise Refused(400, "encoded images and lists of pixels in one request; expected one kind")
    encoded = kinds.pop()
    signature = request.get("signature_name") or None
    actual = _ENCODED if encoded else _DEFAULT
    if signature not in (None, actual):
        raise Refused(
            400, f"signature_name={str(signature)[:80]!r}: does not fit the inputs, which are those of {actual}"
        )
    if any(name not in (None, _ENCODED if encoded else INPUT) for name, _ in pairs):
        raise Refused(400, f"the inputs are of {actual}, but named {pairs[0][0]}")
    images, notes = _images([value for _, value in pairs], encoded, limits, image)
    if not encoded and len({image.shape for image in images}) > 1:
        raise Refused(400, f"{INPUT}: images of several sizes; expected one size, or encoded images")
    return PredictRequest(images, encoded, rows, notes)


def _images(
    values: list[object], encoded: bool, limits: Limits, image: ImageFacts | None
) -> tuple[tuple[np.ndarray, ...], tuple[str, ...]]:
    """Returns the images of a request and what the user should know of them, within the limit of all their pixels."""
    images: list[np.ndarray] = []
    notes: list[str] = []
    for number, value in enumerate(values):
        name = f"image {number}"
        if encoded:
            picture = decode_picture(_content(value), limits, name=name, image=image)
            pixels, told = picture.pixels, picture.notes
        else:
            pixels, told = _pixels(value, image)
            limits.require(pixels.shape[0], pixels.shape[1], name)
        limits = limits.without(pixels.shape[0], pixels.shape[1])
        images.append(pixels)
        notes += [f"{name}: {note}" for note in told]
    return tuple(images), tuple(notes)


def notes_header(notes: Sequence[str]) -> dict[str, str]:
    """Returns the header that tells the notes of a request; without notes none.

    A header, because the body is TensorFlow Serving's to the byte: clients that parse it into a class refuse a key that
    they do not know. It is a JSON list of texts, in ASCII: the first ones of many, and how many more there are.
    """
    if not notes:
        return {}
    told = list(notes[:_MOST_NOTES])
    if len(notes) > len(told):
        told.append(f"and {len(notes) - len(told)} notes more")
    return {NOTES: json.dumps(told)}


def encode_answer(request: PredictRequest, labels: Sequence[np.ndarray]) -> bytes:
    """Returns the body of the answer, with the outputs of the SavedModel's signature, by rows or by columns.

    The outputs of `image_bytes` are label maps padded to one size, and the size of each.

    Args:
      request: the request to answer.
      labels: integers [h, w], one label map for each of its images.
    """
    key = b'{"predictions": [%s]}' if request.rows else b'{"outputs": [%s]}'
    if not request.encoded:
        return key % b",".join(map(json_numbers, labels))
    sizes = np.asarray([label.shape for label in labels])
    height, width = map(int, sizes.max(axis=0))
    maps = []
    for label in labels:
        padding = ((0, height - label.shape[0]), (0, width - label.shape[1]))
        maps.append(json_numbers(np.pad(label, padding, constant_values=LABEL_BEYOND)))
    name = _PREDICTIONS.encode()
    if request.rows:
        rows = zip(maps, sizes, strict=True)
        return key % b",".join(b'{"%s": %s, "sizes": %s}' % (name, found, json_numbers(size)) for found, size in rows)
    return b'{"outputs": {"%s": [%s], "sizes": %s}}' % (name, b",".join(maps), json_numbers(sizes))


def status() -> dict:
    """Returns the answer to GET /v1/models/<name>."""
    state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    return {"model_version_status": [state]}


def _tensor(name: str, dtype: str, sides: Sequence[int]) -> dict:
    shape = {"dim": [{"size": str(side), "name": ""} for side in sides], "unknown_rank": False}
    return {"dtype": dtype, "tensor_shape": shape, "name": name}


def metadata(model_name: str, image: ImageFacts | None = None) -> dict:
    """Returns the answer to GET /v1/models/<name>/metadata, as TensorFlow Serving gives it for the SavedModel."""
    labels = _tensor("PartitionedCall_1:0", "DT_INT32", (-1, -1, -1))
    padded = _tensor("PartitionedCall:0", "DT_INT32", (-1, -1, -1))
    channels, kind = (image.channels, "DT_FLOAT") if image else (3, "DT_UINT8")
    pixels = {INPUT: _tensor(f"{_DEFAULT}_{INPUT}:0", kind, (-1, -1, -1, channels))}
    content = {_ENCODED: _tensor(f"{_ENCODED}_{_ENCODED}:0", "DT_STRING", (-1,))}
    sizes = _tensor("PartitionedCall:1", "DT_INT32", (-1, 2))
    method = "tensorflow/serving/predict"
    signatures = {
        _DEFAULT: {"inputs": pixels, "outputs": {_PREDICTIONS: labels}, "method_name": method},
        _ENCODED: {"inputs": content, "outputs": {_PREDICTIONS: padded, "sizes": sizes}, "method_name": method},
    }
    spec = {"name": model_name, "signature_name": "", "version": "1"}
    return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}
