"""TensorFlow Serving's REST requests and answers, for the signatures of our SavedModels.

`serving_default` takes ImageTensor, uint8 [b, h, w, 3]; `image_bytes` takes encoded pictures as {"b64": "..."}. Both in
the row form ("instances") and in the columnar one ("inputs"). Source: TensorFlow Serving's documentation of its REST
API.
"""

import base64
import binascii
import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from deeplab_tf.config.export import INPUT, OUTPUTS
from deeplab_tf.serving.pictures import decoded
from deeplab_tf.serving.refusal import Refused

_DEFAULT, _ENCODED = "serving_default", "image_bytes"
_PREDICTIONS = OUTPUTS["predictions"]
_BEYOND = 255  # as in the SavedModel: what lies outside of the smaller pictures of a batch


@dataclasses.dataclass(frozen=True)
class Question:
    """What a request asks: its images, each uint8 [h, w, 3]; whether they came encoded, and by rows."""

    images: tuple[np.ndarray, ...]
    encoded: bool
    rows: bool


def _object(body: bytes) -> dict:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON ({str(error)[:100]})") from None
    if not isinstance(found, dict):
        raise Refused(400, f"the body is a JSON {type(found).__name__}; expected an object")
    return found


def _is_bytes(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"}


def _named(value: object) -> tuple[str | None, object]:
    """Splits {"ImageTensor": value}."""
    if not isinstance(value, dict) or _is_bytes(value):
        return None, value
    if len(value) != 1 or not set(value) <= {INPUT, _ENCODED}:
        raise Refused(400, f"inputs named {str(sorted(value)[:5])[:80]}; expected {INPUT} or {_ENCODED}")
    return next(iter(value.items()))


def _content(value: dict) -> bytes:
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise Refused(400, f"b64: not base64 ({error})") from None


def _pixels(value: object) -> np.ndarray:
    """Returns nested lists as uint8 [h, w, 3]."""
    expected = f"{INPUT}: expected lists of whole numbers in 0..255 with the shape [height, width, 3]"
    try:
        # As numbers at once: an array of texts is as large as if all were as long as the longest.
        array = np.asarray(value, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        ragged = "; these have rows of several lengths" if "inhomogeneous" in str(error) else ""
        raise Refused(400, f"{expected}{ragged}") from None
    if array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        raise Refused(400, f"{expected}; these have the shape {list(array.shape)}")
    if not (array.min() >= 0 and array.max() <= 255 and (array == np.floor(array)).all()):
        raise Refused(400, f"{expected}; these are {array.min():g} to {array.max():g}")
    return array.astype(np.uint8)


def _values(request: dict) -> tuple[list[tuple[str | None, object]], bool]:
    """Returns the (name, value) of each image, and whether they came by rows."""
    if ("instances" in request) == ("inputs" in request):
        raise Refused(400, 'expected either "instances" or "inputs"')
    rows = "instances" in request
    if rows:
        found, pairs = request["instances"], None
    else:
        name, found = _named(request["inputs"])
        found = [found] if _is_bytes(found) else found
        pairs = [(name, value) for value in found] if isinstance(found, list) else None
    if not isinstance(found, list) or not found:
        raise Refused(400, f'"{"instances" if rows else "inputs"}": expected a list of at least one image')
    return pairs or [_named(value) for value in found], rows


def question(body: bytes, *, max_pixels: int) -> Question:
    """Reads the body of a :predict request. `Refused` 400 where it is not one, 413 above `max_pixels` in all."""
    request = _object(body)
    pairs, rows = _values(request)
    kinds = {_is_bytes(value) for _, value in pairs}
    if len(kinds) > 1:
        raise Refused(400, "encoded images and lists of pixels in one request; expected one kind")
    encoded = kinds.pop()
    signature, actual = request.get("signature_name") or None, _ENCODED if encoded else _DEFAULT
    if signature not in (None, actual):
        raise Refused(
            400, f"signature_name={str(signature)[:80]!r}: does not fit the inputs, which are those of {actual}"
        )
    if any(name not in (None, _ENCODED if encoded else INPUT) for name, _ in pairs):
        raise Refused(400, f"the inputs are of {actual}, but named {pairs[0][0]}")
    images, left = [], max_pixels
    for number, (_, value) in enumerate(pairs):
        name = f"image {number}"
        image = decoded(_content(value), max_pixels=max(left, 0), name=name) if encoded else _pixels(value)
        left -= image.shape[0] * image.shape[1]
        if left < 0:
            raise Refused(413, f"{name}: more than {max_pixels} pixels in all; expected fewer or smaller images")
        images.append(image)
    if not encoded and len({image.shape for image in images}) > 1:
        raise Refused(400, f"{INPUT}: images of several sizes; expected one size, or encoded images")
    return Question(tuple(images), encoded, rows)


def answer(asked: Question, labels: Sequence[np.ndarray]) -> bytes:
    """Returns the body of the answer: what the SavedModel's signature gives, by rows or by columns.

    `image_bytes` gives maps padded to one size, and each picture's own.
    """
    sizes = [list(label.shape) for label in labels]
    if not asked.encoded:
        maps = [label.tolist() for label in labels]
        return json.dumps({"predictions": maps} if asked.rows else {"outputs": maps}).encode()
    whole = np.max(sizes, axis=0)
    pads = [[(0, int(all_ - own)) for all_, own in zip(whole, size, strict=True)] for size in sizes]
    maps = [np.pad(m, pad, constant_values=_BEYOND).tolist() for m, pad in zip(labels, pads, strict=True)]
    if asked.rows:
        rows = [{_PREDICTIONS: m, "sizes": size} for m, size in zip(maps, sizes, strict=True)]
        return json.dumps({"predictions": rows}).encode()
    return json.dumps({"outputs": {_PREDICTIONS: maps, "sizes": sizes}}).encode()


def status() -> dict:
    """Returns what GET /v1/models/<name> gives."""
    state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    return {"model_version_status": [state]}


def _tensor(name: str, dtype: str, sides: Sequence[int]) -> dict:
    shape = {"dim": [{"size": str(side), "name": ""} for side in sides], "unknown_rank": False}
    return {"dtype": dtype, "tensor_shape": shape, "name": name}


def metadata(model_name: str) -> dict:
    """Returns what GET /v1/models/<name>/metadata gives of our SavedModels."""
    labels, padded = (
        _tensor(f"{name}:0", "DT_INT32", (-1, -1, -1)) for name in ("PartitionedCall_1", "PartitionedCall")
    )
    image = {INPUT: _tensor(f"{_DEFAULT}_{INPUT}:0", "DT_UINT8", (-1, -1, -1, 3))}
    content = {_ENCODED: _tensor(f"{_ENCODED}_{_ENCODED}:0", "DT_STRING", (-1,))}
    sizes = _tensor("PartitionedCall:1", "DT_INT32", (-1, 2))
    method = "tensorflow/serving/predict"
    signatures = {
        _DEFAULT: {"inputs": image, "outputs": {_PREDICTIONS: labels}, "method_name": method},
        _ENCODED: {"inputs": content, "outputs": {_PREDICTIONS: padded, "sizes": sizes}, "method_name": method},
    }
    spec = {"name": model_name, "signature_name": "", "version": "1"}
    return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}
