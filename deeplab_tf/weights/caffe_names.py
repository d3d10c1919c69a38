"""TF1 names and layouts for Caffe's weights of the public models of DeepLab v1 and v2."""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Mapping

import numpy as np

from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.caffe import equal_blobs

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
    unlike = [name for name, original in copies.items() if not equal_blobs(layers[name], layers[original])]
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
