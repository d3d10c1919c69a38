"""Weights of Caffe: the wire format of a .caffemodel, and TF1 names for the public models of DeepLab v1 and v2.

Only what holds weights is read: the net's layers, their names and blobs (fields and numbers: Caffe's caffe.proto).
"""

import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping

import numpy as np

from deeplab_tf import files
from deeplab_tf.errors import DamagedError, DeepLabError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Field numbers of NetParameter -> those of name and blobs in its layers: LayerParameter and, before 2015,
# V1LayerParameter.
_LAYERS = {100: (1, 7), 2: (4, 6)}
_LEGACY_SHAPE, _DATA, _SHAPE, _DOUBLE_DATA = (1, 2, 3, 4), 5, 7, 8
_HDF5 = b"\x89HDF"


# ---- the wire format


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """Returns the number at `place` and the place behind it."""
    value = 0
    for shift, byte in zip(range(0, 70, 7), data[place : place + 10], strict=False):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + shift // 7 + 1
    raise ValueError("a number has no end")


def _run(data: memoryview, start: int, key: int, width: int) -> int:
    """Returns how many records of the key at `start` (of `key` bytes) and `width` bytes follow each other there."""
    size, count, block = key + width, 1, 64
    while True:
        first = start + count * size
        records = min(block, (len(data) - first) // size)
        bytes_ = np.frombuffer(data[first : first + records * size], np.uint8).reshape(records, size)
        same = (bytes_[:, :key] == np.frombuffer(data[start : start + key], np.uint8)).all(1)
        if not same.all() or not records:
            return count + int(np.argmin(same)) if records else count
        count, block = count + records, block * 2


def _fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yields the number, wire type and value of each field of a message; fixed-size ones that repeat as one piece."""
    place = 0
    while place < len(data):
        start = place
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
        elif kind == _BYTES:
            size, place = _varint(data, place)
            value, place = data[place : place + size], place + size
        elif kind in (_FIXED32, _FIXED64):
            width, key_size = 4 if kind == _FIXED32 else 8, place - start
            if place + width > len(data):
                raise ValueError("it ends within a number")
            count = _run(data, start, key_size, width)
            records = np.frombuffer(data[start : start + count * (key_size + width)], np.uint8)
            value = memoryview(records.reshape(count, -1)[:, key_size:].tobytes())
            place = start + len(records)
        else:
            raise ValueError(f"wire type {kind}")
        if place > len(data) or not number:
            raise ValueError("a field reaches beyond the end" if number else "field number 0")
        yield number, kind, value


def _numbers(pieces: list[tuple[int, int | memoryview]]) -> list[int]:
    """Returns repeated integers, packed or not."""
    found = []
    for kind, value in pieces:
        place = 0
        if kind == _VARINT:
            found.append(value)
        elif kind == _BYTES:
            while place < len(value):
                number, place = _varint(value, place)
                found.append(number)
        else:
            raise ValueError(f"an integer of wire type {kind}")
    return found


def _floats(pieces: list[tuple[int, int | memoryview]], dtype: str, fixed: int) -> np.ndarray:
    """Returns repeated floats, packed or not."""
    if any(kind not in (fixed, _BYTES) for kind, _ in pieces):
        raise ValueError("weights that are no floats")
    parts = [np.frombuffer(value, dtype) for _, value in pieces]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def _blob(data: memoryview) -> np.ndarray:
    """Returns a BlobProto: its data in the shape of BlobShape, or of the older num, channels, height, width."""
    pieces: dict[int, list] = {}
    for number, kind, value in _fields(data):
        pieces.setdefault(number, []).append((kind, value))
    if _DOUBLE_DATA in pieces:
        values = _floats(pieces[_DOUBLE_DATA], "<f8", _FIXED64)
    else:
        values = _floats(pieces.get(_DATA, []), "<f4", _FIXED32)
    if _SHAPE in pieces:
        if any(kind != _BYTES for kind, _ in pieces[_SHAPE]):
            raise ValueError("a shape that is a number")
        dims = [(kind, value) for _, shape in pieces[_SHAPE] for n, kind, value in _fields(shape) if n == 1]
        shape = tuple(_numbers(dims))
    else:
        shape = tuple(sum(_numbers(pieces.get(number, []))[-1:]) for number in _LEGACY_SHAPE)
    if math.prod(shape) != len(values):
        raise ValueError(f"{len(values)} weights for the shape {list(shape)}")
    return values.reshape(shape)


def _layer(data: memoryview, name_field: int, blobs_field: int) -> tuple[str, list[np.ndarray]]:
    name, blobs = "", []
    for number, kind, value in _fields(data):
        if number == name_field and kind == _BYTES:
            name = bytes(value).decode()
        elif number == blobs_field and kind == _BYTES:
            try:
                blobs.append(_blob(value))
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from None
    return name, blobs


def read_caffemodel(path: str | os.PathLike) -> dict[str, list[np.ndarray]]:
    """Returns the weights of a .caffemodel: layer name -> its blobs, float32 (float64 where so stored).

    They have Caffe's layout, [out, in, h, w] for kernels, and are views of the file's bytes, not to be written to.
    Layers without weights are left out. Old nets (V1LayerParameter, four-dimensional blobs) and new ones are read.

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
            if number in _LAYERS and kind == _BYTES:
                name, blobs = _layer(value, *_LAYERS[number])
                if blobs and not _equal(layers.setdefault(name, blobs), blobs):
                    raise DeepLabError(f"{path}: two layers {name!r} with different weights; expected one")
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, DeepLabError):
            raise
        raise DamagedError(
            f"{path}: damaged or truncated, or no .caffemodel ({error}); fetch or copy it again"
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
_VARIANTS = {"vgg_16": "vgg16", "resnet_v1_101": "resnet_v1_101_caffe"}


def _backbone_scope(layers: Mapping[str, list]) -> str:
    units = {match[2] + match[3] for name in layers if (match := _RESNET_UNIT.match(name)) and match[1] == "4"}
    if "conv1" in layers and len(units) in _RESNET_DEPTHS:
        return f"resnet_v1_{_RESNET_DEPTHS[len(units)]}"
    if "conv1_1" in layers and "conv5_3" in layers:
        return "vgg_16"
    raise DeepLabError(
        f"its layers ({', '.join(itertools.islice(layers, 5))}, ...) are neither VGG-16's (conv1_1 to conv5_3) nor "
        "those of a ResNet with 50, 101 or 152 layers (conv1, res2a_branch1 to res5c_branch2c)"
    )


def _scope(name: str, backbone: str) -> str | None:
    """Returns the TF1 scope of a convolution or inner product; None where there is no place for it."""
    for first, pattern in enumerate(_LOGITS):
        if match := pattern.match(name):
            # fc8_voc12_1 is the first of four, and so is fc1_voc12_c0.
            branch = int(match[1]) - 1 + first if match[1] else 0
            return f"logits/semantic_{branch}" if branch else "logits/semantic"
    if backbone == "vgg_16":
        if match := _VGG_CONV.match(name):
            return f"{backbone}/conv{match[1]}/{name}"
        return f"{backbone}/{name}" if _VGG_FC.match(name) or name == "fc8" else None
    if match := _RESNET_UNIT.match(name):
        unit = 1 + int(match[3]) if match[3] else ord(match[2]) - ord("a") + 1
        return f"{backbone}/block{int(match[1]) - 1}/unit_{unit}/bottleneck_v1/{_RESNET_PARTS[match[4]]}"
    return {"conv1": f"{backbone}/conv1", "fc1000": f"{backbone}/logits"}.get(name)


def _kernel(name: str, blob: np.ndarray, channels: int) -> np.ndarray:
    """Returns weights as [h, w, in, out], RGB; `channels` are those that a flat fc6 reads."""
    if blob.ndim == 4 and blob.shape[:2] == (1, 1):
        blob = blob[0, 0]  # an inner product in the old form
    if blob.ndim == 2:
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


def _norm(layers: Mapping[str, list[np.ndarray]], suffix: str, bias: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the batch norm of the pair bn<suffix> and scale<suffix>; a bias before it moves the mean.

    Caffe stores sums of mean and variance and, third, what to divide them by (BatchNorm's scale factor); its epsilon is
    1e-5, ours too.
    """
    statistics, scale = layers.get(f"bn{suffix}", []), layers.get(f"scale{suffix}", [])
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


def _without_copies(layers: Mapping[str, list]) -> tuple[dict[str, list], tuple[str, ...]]:
    """Leaves out the layers of v2's scaled branches, which share the weights of scale 1."""
    copies = {name: match[1] for name in layers if (match := _SCALED_COPY.match(name)) and match[1] in layers}
    if not copies:
        return dict(layers), ()
    unlike = [name for name, original in copies.items() if not _equal(layers[name], layers[original])]
    note = f"{len(copies)} layers of the scaled branches (such as {next(iter(copies))}) are left out as copies"
    note += f"; {len(unlike)} of them differ, such as {unlike[0]}: scale 1 was taken" if unlike else ""
    return {name: blobs for name, blobs in layers.items() if name not in copies}, (note,)


def _variables(name: str, layers: Mapping[str, list[np.ndarray]], backbone: str) -> dict[str, np.ndarray]:
    """Returns the variables that one convolution or inner product, with its batch norm, becomes."""
    scope, blobs = _scope(name, backbone), layers[name]
    if scope is None:
        return {f"{name}/blob_{i}": np.asarray(blob, np.float32) for i, blob in enumerate(blobs)}
    channels = layers["conv5_3"][0].shape[0] if "conv5_3" in layers else 1
    found = {f"{scope}/weights": _kernel(name, blobs[0], channels)}
    if backbone == "vgg_16" or name.startswith("fc"):
        return {**found, **{f"{scope}/biases": np.asarray(blob, np.float32).ravel() for blob in blobs[1:]}}
    suffix = "_conv1" if name == "conv1" else name.removeprefix("res")
    norm = _norm(layers, suffix, blobs[1].ravel() if len(blobs) > 1 else np.float32(0))
    return {**found, **{f"{scope}/BatchNorm/{leaf}": value for leaf, value in norm.items()}}


def tf1_variables(layers: Mapping[str, list[np.ndarray]]) -> tuple[dict[str, np.ndarray], str | None, tuple[str, ...]]:
    """Returns VGG-16 or ResNet weights of DeepLab v1 and v2 (or ImageNet) under TF1 names and in TensorFlow's layout.

    Kernels become [h, w, in, out]; the first reads RGB instead of BGR (the mean, of Caffe too, is the network's to
    subtract); batch norm and scale layers become one batch norm. A layer that neither network has keeps its name, so
    that a strict reader finds it: <name>/blob_<i>.

    Args:
      layers: from `read_caffemodel`.

    Returns:
      TF1 name -> float32 array; the model_variant whose padding and mean are Caffe's, where there is one; notes.

    Raises:
      DeepLabError: neither network, a shape that cannot be, a batch norm without its scale.
    """
    layers, notes = _without_copies(layers)
    backbone, found = _backbone_scope(layers), {}
    norms = {
        f"{kind}{name.removeprefix('res')}" for name in layers if _RESNET_UNIT.match(name) for kind in ("bn", "scale")
    }
    norms |= {"bn_conv1", "scale_conv1"}
    for name in layers:
        if name not in norms:
            found |= _variables(name, layers, backbone)
    return found, _VARIANTS.get(backbone), notes
