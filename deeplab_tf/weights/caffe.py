"""Caffe's weights: reading a .caffemodel, and TF1 names for the public models of DeepLab v1 and v2.

Of the file only the layers' names and blobs are read (fields and their numbers: Caffe's caffe.proto).
"""

import dataclasses
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from deeplab_tf import files
from deeplab_tf.errors import DamagedError, DeepLabError

# Protobuf's wire types.
_VARINT = 0
_FIXED64 = 1
_BYTES = 2
_FIXED32 = 5
# Field numbers of NetParameter -> those of name and blobs in its layers: LayerParameter and, before 2015,
# V1LayerParameter.
_LAYERS = {100: (1, 7), 2: (4, 6)}
# Field numbers of BlobProto.
_LEGACY_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
_DATA = 5
_SHAPE = 7
_DOUBLE_DATA = 8
_DIM = 1  # of BlobShape
_HDF5 = b"\x89HDF"

# A number of wire type VARINT, or the bytes of any other type.
_Value = int | memoryview
# The values of one field of a message, in order, each with its wire type.
_Pieces = list[tuple[int, _Value]]


# ---- the wire format


def _varint(data: memoryview, start: int) -> tuple[int, int]:
    """Returns the number at `start` and the position after it."""
    value = 0
    for shift, byte in zip(range(0, 70, 7), data[start : start + 10], strict=False):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start + shift // 7 + 1
    raise ValueError("a number has no end")


def _run(data: memoryview, start: int, key: int, width: int) -> int:
    """Returns how many records with the same key follow each other from `start` on.

    A record is a key of `key` bytes and a value of `width` bytes.
    """
    # An unpacked field of a million weights is a million records with a key each. They are compared in blocks, which
    # grow, because most fields are short.
    size = key + width
    expected = np.frombuffer(data[start : start + key], np.uint8)
    count = 1
    block = 64
    while True:
        first = start + count * size
        records = min(block, (len(data) - first) // size)
        if not records:
            return count
        table = np.frombuffer(data[first : first + records * size], np.uint8).reshape(records, size)
        same = (table[:, :key] == expected).all(1)
        if not same.all():
            return count + int(np.argmin(same))
        count += records
        block *= 2


def _fields(data: memoryview) -> Iterator[tuple[int, int, _Value]]:
    """Yields the number, wire type and value of each field of a message.

    Fields of a fixed size that repeat come as one value, their bytes put together: so they are read at NumPy's speed,
    as a packed field is.
    """
    position = 0
    while position < len(data):
        start = position
        key, position = _varint(data, position)
        number = key >> 3
        kind = key & 7
        value: _Value
        if kind == _VARINT:
            value, position = _varint(data, position)
        elif kind == _BYTES:
            size, position = _varint(data, position)
            value = data[position : position + size]
            position += size
        elif kind in (_FIXED32, _FIXED64):
            width = 4 if kind == _FIXED32 else 8
            key_size = position - start
            if position + width > len(data):
                raise ValueError("it ends within a number")
            count = _run(data, start, key_size, width)
            records = np.frombuffer(data[start : start + count * (key_size + width)], np.uint8)
            value = memoryview(records.reshape(count, -1)[:, key_size:].tobytes())
            position = start + len(records)
        else:
            raise ValueError(f"wire type {kind}")
        if position > len(data):
            raise ValueError("a field reaches beyond the end")
        if not number:
            raise ValueError("field number 0")
        yield number, kind, value


def _numbers(pieces: _Pieces) -> list[int]:
    """Returns repeated integers, packed or not."""
    numbers: list[int] = []
    for kind, value in pieces:
        if isinstance(value, int):
            numbers.append(value)
        elif kind == _BYTES:
            position = 0
            while position < len(value):
                number, position = _varint(value, position)
                numbers.append(number)
        else:
            raise ValueError(f"an integer of wire type {kind}")
    return numbers


def _floats(pieces: _Pieces, dtype: str, fixed: int) -> np.ndarray:
    """Returns repeated floats, packed or not (then of the wire type `fixed`)."""
    parts: list[np.ndarray] = []
    for kind, value in pieces:
        if isinstance(value, int) or kind not in (fixed, _BYTES):
            raise ValueError("weights that are not floats")
        parts.append(np.frombuffer(value, dtype))
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def _blob(data: memoryview) -> np.ndarray:
    """Returns a BlobProto: its data in the shape of BlobShape, or of the older num, channels, height, width."""
    pieces: dict[int, _Pieces] = {}
    for number, kind, value in _fields(data):
        pieces.setdefault(number, []).append((kind, value))
    if _DOUBLE_DATA in pieces:
        values = _floats(pieces[_DOUBLE_DATA], "<f8", _FIXED64)
    else:
        values = _floats(pieces.get(_DATA, []), "<f4", _FIXED32)
    if _SHAPE in pieces:
        shape = tuple(_numbers(_dims(pieces[_SHAPE])))
    else:
        # Of a field that is repeated by mistake the last counts, as for protobuf; one that is absent is 0.
        shape = tuple(sum(_numbers(pieces.get(number, []))[-1:]) for number in _LEGACY_SHAPE)
    if math.prod(shape) != len(values):
        raise ValueError(f"{len(values)} weights for the shape {list(shape)}")
    return values.reshape(shape)


def _dims(shapes: _Pieces) -> _Pieces:
    """Returns the sides of a BlobShape."""
    dims: _Pieces = []
    for kind, shape in shapes:
        if isinstance(shape, int) or kind != _BYTES:
            raise ValueError("a shape that is a number")
        dims += [(kind, value) for number, kind, value in _fields(shape) if number == _DIM]
    return dims


def _layer(data: memoryview, name_field: int, blobs_field: int) -> tuple[str, list[np.ndarray]]:
    """Returns the name of a layer and its blobs."""
    name = ""
    blobs: list[np.ndarray] = []
    for number, kind, value in _fields(data):
        if isinstance(value, int) or kind != _BYTES:
            continue
        if number == name_field:
            name = bytes(value).decode()
        elif number == blobs_field:
            try:
                blobs.append(_blob(value))
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from None
    return name, blobs


def read_caffemodel(path: str | os.PathLike) -> dict[str, list[np.ndarray]]:
    """Returns the weights of a .caffemodel: layer name -> its blobs, in the precision they are stored in.

    They have Caffe's layout, [out, in, h, w] for kernels, and are read-only views of the file's bytes. Layers without
    weights are left out. Old nets (V1LayerParameter, four-dimensional blobs) and new ones are read.

    Raises:
      DeepLabError: the file cannot be read, is damaged or truncated, or holds no weights.
    """
    path = files.path(path)
    try:
        content = memoryview(path.read_bytes())
    except OSError as error:
        raise DeepLabError(f"{path}: cannot be read ({error.strerror or error}); expected a .caffemodel") from None
    if content[:4] == _HDF5:
        raise DeepLabError(f"{path}: an HDF5 snapshot; expected Caffe's binary form (snapshot_format: BINARYPROTO)")
    layers: dict[str, list[np.ndarray]] = {}
    try:
        for number, kind, value in _fields(content):
            if number in _LAYERS and kind == _BYTES and not isinstance(value, int):
                name, blobs = _layer(value, *_LAYERS[number])
                if blobs and not _equal(layers.setdefault(name, blobs), blobs):
                    raise DeepLabError(f"{path}: two layers {name!r} with different weights; expected one")
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, DeepLabError):
            raise
        raise DamagedError(
            f"{path}: damaged or truncated, or not a .caffemodel ({error}); fetch or copy it again"
        ) from None
    if not layers:
        raise DeepLabError(f"{path}: holds no layers with weights; expected a .caffemodel of DeepLab v1 or v2")
    return layers


def _equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return first is second or (len(first) == len(second) and all(map(np.array_equal, first, second)))


# ---- from Caffe's names and layouts to the release's

_SCALED_COPY = re.compile(r"(.+)_res(?:075|05)$")
_VGG_CONV = re.compile(r"conv([1-5])_([1-3])$")
_VGG_FC = re.compile(r"(fc[67](?:_[1-4])?)$")
_RESNET_UNIT = re.compile(r"res([2-5])([a-z])(\d*)_branch(1|2[abc])$")
# The last layers carry the name of the experiment: fc8_voc12, fc8_voc12_1; fc1_voc12, fc1_voc12_c0.
_LOGITS = (re.compile(r"fc8_\w+?(?:_([1-4]))?$"), re.compile(r"fc1_\w+?(?:_c([0-3]))?$"))
_RESNET_PARTS = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_RESNET_DEPTHS = {6: 50, 23: 101, 36: 152}  # by the units of the third block
# Layer name -> its blobs.
_Layers = Mapping[str, list[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class _Backbone:
    """A network whose public Caffe models can be read.

    Attributes:
      scope: its TF1 scope.
      place: from a layer's name to its scope below that; None where the network has no such layer.
      batch_norm: whether batch norms follow its convolutions.
      model_variant: the one that pads and subtracts as the Caffe models do, where there is one.
    """

    scope: str
    place: Callable[[str], str | None]
    batch_norm: bool
    model_variant: str | None = None


def _vgg_place(name: str) -> str | None:
    if match := _VGG_CONV.match(name):
        return f"conv{match[1]}/{name}"
    return name if _VGG_FC.match(name) or name == "fc8" else None


def _resnet_place(name: str) -> str | None:
    if match := _RESNET_UNIT.match(name):
        unit = 1 + int(match[3]) if match[3] else ord(match[2]) - ord("a") + 1
        return f"block{int(match[1]) - 1}/unit_{unit}/bottleneck_v1/{_RESNET_PARTS[match[4]]}"
    return {"conv1": "conv1", "fc1000": "logits"}.get(name)


_VGG_16 = _Backbone("vgg_16", _vgg_place, batch_norm=False, model_variant="vgg16")
_CAFFE_RESNETS = {101: "resnet_v1_101_caffe"}


def _backbone(layers: _Layers) -> _Backbone:
    units = {match[2] + match[3] for name in layers if (match := _RESNET_UNIT.match(name)) and match[1] == "4"}
    if "conv1" in layers and len(units) in _RESNET_DEPTHS:
        depth = _RESNET_DEPTHS[len(units)]
        return _Backbone(f"resnet_v1_{depth}", _resnet_place, True, _CAFFE_RESNETS.get(depth))
    if "conv1_1" in layers and "conv5_3" in layers:
        return _VGG_16
    raise DeepLabError(
        f"its layers ({', '.join(itertools.islice(layers, 5))}, ...) are neither VGG-16's (conv1_1 to conv5_3) nor "
        "those of a ResNet with 50, 101 or 152 layers (conv1, res2a_branch1 to res5c_branch2c)"
    )


def _scope(name: str, backbone: _Backbone) -> str | None:
    """Returns the TF1 scope of a convolution or inner product; None: the release has no such layer."""
    # fc8_voc12_1 and fc1_voc12_c0 are the first of four.
    for pattern, first in zip(_LOGITS, (1, 0), strict=True):
        if match := pattern.match(name):
            branch = int(match[1]) - first if match[1] else 0
            return f"logits/semantic_{branch}" if branch else "logits/semantic"
    place = backbone.place(name)
    return None if place is None else f"{backbone.scope}/{place}"


def _kernel(name: str, blob: np.ndarray, channels: int) -> np.ndarray:
    """Returns weights as [h, w, in, out], of RGB; `channels` is the number that a flat fc6 reads."""
    if blob.ndim == 4 and blob.shape[:2] == (1, 1):
        blob = blob[0, 0]  # an inner product in the old form
    if blob.ndim == 2:
        # ImageNet's fc6 is an inner product of all pixels of pool5: a convolution with a kernel as large as that map.
        side = math.isqrt(blob.shape[1] // channels) if name == "fc6" else 1
        if name == "fc6" and channels * side**2 != blob.shape[1]:
            raise DeepLabError(f"layer {name!r} reads {blob.shape[1]} values; expected a square of {channels} channels")
        blob = blob.reshape(len(blob), -1, side, side)
    if blob.ndim != 4:
        raise DeepLabError(f"layer {name!r} has weights of shape {list(blob.shape)}; expected [out, in, h, w]")
    kernel = blob.transpose(2, 3, 1, 0)
    if name in ("conv1", "conv1_1"):
        if kernel.shape[2] != 3:
            raise DeepLabError(f"layer {name!r} reads {kernel.shape[2]} channels; expected 3, blue, green, red")
        kernel = kernel[:, :, ::-1]
    return np.ascontiguousarray(kernel, np.float32)


def _norm(layers: _Layers, suffix: str, bias: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the batch norm of the pair bn<suffix> and scale<suffix>.

    A `bias` before it, [channels] or [1], moves the mean. Caffe stores sums of mean and variance and, third, the number
    to divide them by (BatchNorm's scale factor); its epsilon is 1e-5, as ours is.
    """
    statistics = layers.get(f"bn{suffix}", [])
    scale = layers.get(f"scale{suffix}", [])
    if len(statistics) != 3 or len(scale) != 2:
        raise DeepLabError(
            f"bn{suffix} has {len(statistics)} blobs and scale{suffix} {len(scale)}; expected 3 (mean, variance, "
            "factor) and 2 (gamma, beta)"
        )
    mean, variance, factor = (blob.astype(np.float64).ravel() for blob in statistics)
    factor = 1 / factor[0] if factor[0] else 0.0
    gamma, beta = scale
    values = {"gamma": gamma, "beta": beta, "moving_mean": mean * factor - bias, "moving_variance": variance * factor}
    return {leaf: np.asarray(value, np.float32).ravel() for leaf, value in values.items()}


def _without_copies(layers: _Layers) -> tuple[_Layers, tuple[str, ...]]:
    """Returns the layers without those of v2's scaled branches, which share the weights of scale 1, and notes."""
    copies = {name: match[1] for name in layers if (match := _SCALED_COPY.match(name)) and match[1] in layers}
    if not copies:
        return layers, ()
    unlike = [name for name, original in copies.items() if not _equal(layers[name], layers[original])]
    note = f"{len(copies)} layers of the scaled branches (such as {next(iter(copies))}) are left out as copies"
    if unlike:
        note += f"; {len(unlike)} of them differ, such as {unlike[0]}: scale 1 was taken"
    return {name: blobs for name, blobs in layers.items() if name not in copies}, (note,)


def _variables(name: str, layers: _Layers, backbone: _Backbone) -> dict[str, np.ndarray]:
    """Returns the variables that one convolution or inner product, with its batch norm, becomes."""
    scope = _scope(name, backbone)
    blobs = layers[name]
    if scope is None:
        return {f"{name}/blob_{i}": np.asarray(blob, np.float32) for i, blob in enumerate(blobs)}
    channels = layers["conv5_3"][0].shape[0] if "conv5_3" in layers else 1
    variables = {f"{scope}/weights": _kernel(name, blobs[0], channels)}
    if not backbone.batch_norm or name.startswith("fc"):
        return variables | {f"{scope}/biases": np.asarray(blob, np.float32).ravel() for blob in blobs[1:]}
    suffix = "_conv1" if name == "conv1" else name.removeprefix("res")
    norm = _norm(layers, suffix, blobs[1].ravel() if len(blobs) > 1 else np.zeros(1, np.float32))
    return variables | {f"{scope}/BatchNorm/{leaf}": value for leaf, value in norm.items()}


def tf1_variables(layers: _Layers) -> tuple[dict[str, np.ndarray], str | None, tuple[str, ...]]:
    """Returns VGG-16 or ResNet weights of DeepLab v1 and v2 (or ImageNet) under TF1 names and in TensorFlow's layout.

    Kernels become [h, w, in, out]; the first reads RGB instead of BGR (to subtract Caffe's mean is left to the
    network); batch norm and scale layers become one batch norm. A layer that neither network has is named
    <name>/blob_<i>, so that a strict reader finds it.

    Args:
      layers: from `read_caffemodel`.

    Returns:
      TF1 name -> float32 array; the model_variant whose padding and mean are Caffe's, or None; notes.

    Raises:
      DeepLabError: it is neither network, or a shape is impossible, or a batch norm lacks its scale.
    """
    layers, notes = _without_copies(layers)
    backbone = _backbone(layers)
    norms = {
        f"{kind}{name.removeprefix('res')}" for name in layers if _RESNET_UNIT.match(name) for kind in ("bn", "scale")
    }
    norms |= {"bn_conv1", "scale_conv1"}
    variables: dict[str, np.ndarray] = {}
    for name in layers:
        if name not in norms:
            variables |= _variables(name, layers, backbone)
    return variables, backbone.model_variant, notes
