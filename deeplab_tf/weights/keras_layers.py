"""Weights of other people's Keras networks by the names of their layers (.h5), as TF1 variables.

The names follow the release's scopes: bubbliiiing/deeplabv3-plus-keras and -tf2 (nets/deeplab.py, mobilenet.py,
Xception.py), and bonlime/keras-deeplab-v3-plus (model.py), which they follow and which holds Google's weights.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from deeplab_tf import files
from deeplab_tf.documents.json_files import parse_json
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights import keras_file
from deeplab_tf.weights.tensor_files import NamedTensors

# A layer's name -> its scope; one that ends in _BN is the batch norm there.
_ROWS = (
    (r"Conv", r"MobilenetV2/Conv"),
    (r"expanded_conv_(depthwise|project)", r"MobilenetV2/expanded_conv/\1"),
    (r"expanded_conv_(\d{1,2})_(expand|depthwise|project)", r"MobilenetV2/expanded_conv_\1/\2"),
    (r"entry_flow_(conv1_[12])", r"xception_65/entry_flow/\1"),
    (r"(entry|exit)_flow_block(\d)_(\w+)", r"xception_65/\1_flow/block\2/unit_1/xception_module/\3"),
    (r"middle_flow_unit_(\d{1,2})_(\w+)", r"xception_65/middle_flow/block1/unit_\1/xception_module/\2"),
    (r"(aspp0|image_pooling|concat_projection|aspp[1-9]_(?:depthwise|pointwise))", r"\1"),
    (r"(feature_projection0|decoder_conv[01]_(?:depthwise|pointwise))", r"decoder/\1"),
    (r"(?:custom_)?logits_semantic|conv2d(?:_\d+)?", r"logits/semantic"),
)
_LEAVES = {
    "kernel": "weights",
    "depthwise_kernel": "depthwise_weights",
    "bias": "biases",
    **{name: name for name in ("gamma", "beta", "moving_mean", "moving_variance")},
}
_NORM = "_BN"


@dataclasses.dataclass(frozen=True)
class _System:
    """Whose layers they are: `has` and `lacks` are names of layers that tell it."""

    name: str
    has: tuple[str, ...]
    lacks: tuple[str, ...]
    model_variant: str


_AUTHOR = "bubbliiiing/deeplabv3-plus-keras"
_OF_RELEASE = "bonlime/keras-deeplab-v3-plus"
_NAMED_LOGITS = ("logits_semantic", "custom_logits_semantic")
# Of bonlime's networks the one on MobileNetV2 has no decoder; both name their logits.
SYSTEMS = (
    _System(f"{_AUTHOR} (MobileNetV2)", ("Conv", "feature_projection0"), _NAMED_LOGITS, "mobilenet_v2_tf2"),
    _System(f"{_AUTHOR} (Xception)", ("entry_flow_conv1_1", "aspp0"), _NAMED_LOGITS, "xception_65_tf2"),
    _System(f"{_OF_RELEASE} (MobileNetV2)", ("Conv", "aspp0"), ("feature_projection0",), "mobilenet_v2"),
    _System(f"{_OF_RELEASE} (Xception)", ("entry_flow_conv1_1", "aspp0"), (), "xception_65"),
)


def system_of(layers: Collection[str]) -> _System | None:
    """Returns the system whose layers these are, or None."""
    for system in SYSTEMS:
        if all(name in layers for name in system.has) and not any(name in layers for name in system.lacks):
            return system
    return None


def tf1_name(layer: str, leaf: str) -> str | None:
    """Returns the TF1 name of a variable of a layer, or None: no rule has it."""
    name, norm = (layer.removesuffix(_NORM), "/BatchNorm") if layer.endswith(_NORM) else (layer, "")
    for theirs, ours in _ROWS:
        match = re.fullmatch(theirs, name)
        if match and leaf in _LEAVES:
            # Keras 3 calls the kernel of a depthwise convolution as any other.
            leaf = "depthwise_kernel" if leaf == "kernel" and name.endswith("depthwise") else leaf
            return f"{match.expand(ours)}{norm}/{_LEAVES[leaf]}"
    return None


def _datasets(group: Any) -> Iterator[tuple[str, str, Any]]:
    """Yields layer, name of the variable in it (kernel, gamma), and the data, of Keras's layout until Keras 2."""
    for layer in group:
        waiting = [group[layer]]
        while waiting:
            entry = waiting.pop()
            if isinstance(entry, h5py.Group):
                waiting += [entry[name] for name in entry]
            elif isinstance(entry, h5py.Dataset):
                yield layer, str(entry.name).rpartition("/")[2].partition(":")[0], entry


def _rates(content: Any) -> dict[str, Any]:
    """Returns the atrous rates and the output stride that the description of a whole model tells; {}: there is none."""
    try:
        layers = parse_json(content.attrs["model_config"], dict[str, Any])["config"]["layers"]
        configs = {layer["config"]["name"]: layer["config"] for layer in layers}
        rates = [int(configs[f"aspp{n}_depthwise"]["dilation_rate"][0]) for n in (1, 2, 3)]
    except (KeyError, ValueError, TypeError, IndexError, AttributeError):
        return {}
    stride = 96 // max(1, rates[0])
    known = stride in (8, 16) and rates == [n * 96 // stride for n in (1, 2, 3)]
    return {"atrous_rates": tuple(rates), "output_stride": stride} if known else {}


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """Weights by the names of layers, under TF1 names, and `known`, the fields of ModelConfig that the file tells."""

    tensors: NamedTensors
    known: Mapping[str, Any]


def _placed(system: _System, path: files.AnyPath, group: Any) -> dict[str, tuple[str, Any]]:
    """Returns TF1 name -> name there and data; a name that no rule has is as it was."""
    found: dict[str, tuple[str, Any]] = {}
    for layer, leaf, data in _datasets(group):
        theirs = f"{layer}/{leaf}"
        ours = tf1_name(layer, leaf) or theirs
        if ours in found:
            raise DeepLabError(f"{path}: {theirs} and {found[ours][0]} are both {ours} of {system.name}")
        if data.dtype.kind != "f":
            raise DeepLabError(f"{path}: {theirs} holds {data.dtype}; expected floats")
        found[ours] = theirs, data
    return found


def _reader(path: files.AnyPath, places: Mapping[str, str]) -> Callable[[str], np.ndarray]:
    """Returns what reads a variable; the first call reads all, whose shapes the caller knows by then."""

    @functools.cache
    def everything() -> dict[str, np.ndarray]:
        with keras_file.opening(path), keras_file.here(path) as local, h5py.File(local, "r") as content:
            return {name: np.asarray(content[place][()], np.float32) for name, place in places.items()}

    return lambda name: everything()[name]


def read_layers(path: files.AnyPath) -> LayerWeights | None:
    """Returns the weights of a .h5 of a system that is known by the names of its layers; None: it is another file.

    A file of a whole model is read as well: its layers are not built, and nothing that it describes is run.

    Raises:
      DeepLabError: it is damaged, refers to other files, or holds weights of another network without a description.
    """
    with keras_file.opening(path), keras_file.here(path) as local, h5py.File(local, "r") as content:
        keras_file.check_content(path, content, pathlib.Path(local).stat().st_size)
        whole = isinstance(content.get("model_weights"), h5py.Group)
        group = content["model_weights"] if whole else content
        if "layer_names" not in group.attrs and "layer_names0" not in group.attrs:
            return None
        system = system_of(group)
        if system is None:
            if whole:
                return None
            known = "; ".join(each.name for each in SYSTEMS)
            shown = ", ".join(" ".join(name.split())[:40] for name in list(group)[:3])
            raise DeepLabError(
                f"{path}: weights of another Keras network (layers {shown}, ...); expected those of deeplab_tf, "
                f"whole models or .weights.h5, or of {known}"
            )
        found = _placed(system, path, group)
        shapes = {name: tuple(data.shape) for name, (_, data) in found.items()}
        read = _reader(path, {name: str(data.name) for name, (_, data) in found.items()})
        notes = (f"names and layout are those of {system.name}",)
        origins = {name: theirs for name, (theirs, _) in found.items()}
        return LayerWeights(NamedTensors(shapes, read, notes, system.model_variant, origins, {}), _rates(content))
