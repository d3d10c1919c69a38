"""Folders of Hugging Face's transformers: config.json as a ModelConfig and back, and what its image processor does.

Source: transformers' configuration_mobilenet_v2.py, modeling_mobilenet_v2.py and image_processing_mobilenet_v2.py.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, cast

from deeplab_tf import files
from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import ModelConfig
from deeplab_tf.config.inference import LONGEST_SIDE
from deeplab_tf.documents import json_files
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.recognize import Kind

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
_MODEL_TYPE = "mobilenet_v2"
_SEGMENTATION = "MobileNetV2ForSemanticSegmentation"
_IGNORE_LABEL = 255
_EPSILON = 1e-3

# Fields that the network follows, and their values where a file leaves them out.
_DEFAULTS: dict[str, Any] = {
    "num_channels": 3,
    "depth_multiplier": 1.0,
    "depth_divisible_by": 8,
    "min_depth": 8,
    "expand_ratio": 6.0,
    "output_stride": 32,
    "first_layer_is_expansion": True,
    "finegrained_output": True,
    "hidden_act": "relu6",
    "tf_padding": True,
    "layer_norm_eps": _EPSILON,
    "semantic_loss_ignore_index": _IGNORE_LABEL,
}
# Fields that the classes are told by.
_CLASSES = ("id2label", "label2id", "num_labels")
# Fields that change nothing of what the network gives for an image: notes, training, and options of text models that
# transformers writes into every file.
_NEUTRAL = frozenset(
    {
        *("architectures", "model_type", "transformers_version", "_name_or_path", "_commit_hash", "image_size"),
        *("dtype", "torch_dtype", "classifier_dropout_prob", "initializer_range", "problem_type", "finetuning_task"),
        *("return_dict", "output_hidden_states", "output_attentions", "use_cache", "is_encoder_decoder", "is_decoder"),
        *("chunk_size_feed_forward", "tie_word_embeddings", "tf_legacy_loss", "use_bfloat16", "torchscript"),
        *("pruned_heads", "cross_attention_hidden_size", "add_cross_attention", "tie_encoder_decoder", "prefix"),
        *("task_specific_params", "tokenizer_class", "bos_token_id", "pad_token_id", "eos_token_id", "sep_token_id"),
        *("decoder_start_token_id", "gradient_checkpointing"),
    }
)


@dataclasses.dataclass(frozen=True)
class Folder:
    """What a folder's config.json and preprocessor_config.json say.

    Attributes:
      config: the network; of a backbone with the classes of its head left at the default.
      kind: "segmentation" or "backbone" (ImageNet's classifier, or none).
      class_names: () where they are placeholders, LABEL_0 and so on.
      ignore_label: that of the loss.
      notes: what the image processor there does beyond the network, a line each.
    """

    config: ModelConfig
    kind: Kind
    class_names: tuple[str, ...]
    ignore_label: int
    notes: tuple[str, ...]


class _Values:
    """The fields of a JSON file, taken by name and checked for their type."""

    def __init__(self, path: files.AnyPath, values: Mapping[str, Any], defaults: Mapping[str, Any]):
        self.path, self.values, self.defaults = path, values, defaults

    def wrong(self, name: str, expected: str) -> DeepLabError:
        shown = json.dumps(self.values.get(name))[:60]
        return DeepLabError(f"{self.path}: {name}={shown}; expected {expected}")

    def number(self, name: str, *, whole: bool = False) -> Any:
        value = self.values.get(name, self.defaults[name])
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not -1e9 < value < 1e9:
            raise self.wrong(name, "a whole number" if whole else "a number")
        return value if whole else float(value)

    def flag(self, name: str) -> bool:
        value = self.values.get(name, self.defaults[name])
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value


def read_json(path: files.AnyPath) -> dict[str, Any]:
    """Returns the fields of a JSON file; DeepLabError where it is none."""
    try:
        return json_files.read_json(path, dict[str, Any])
    except OSError as error:
        raise DeepLabError(f"{path}: cannot be read ({error.strerror or error}); expected a JSON file") from None
    except json_files.JSONError as error:
        raise DeepLabError(f"{path}: not a JSON file of fields ({error}); fetch or copy it again") from None


_MOST_CLASSES = 65_536  # a name is made for each before the weights tell how many there are


def is_folder(folder: files.AnyPath) -> bool:
    """Returns whether a folder has a config.json of transformers'."""
    return (folder / CONFIG).is_file()


def _class_names(fields: _Values) -> tuple[str, ...]:
    """Returns the classes in label order; id2label, label2id and num_labels must agree."""
    labels = fields.values.get("id2label")
    count = fields.values.get("num_labels")
    if labels is None:
        number = 2 if count is None else count
        if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= _MOST_CLASSES:
            raise fields.wrong("num_labels", f"a number of classes, at most {_MOST_CLASSES}")
        return tuple(f"LABEL_{i}" for i in range(number))
    if not isinstance(labels, dict):
        raise fields.wrong("id2label", "a name for each class number")
    pairs = cast("dict[str, Any]", labels)
    names = tuple(pairs.get(str(i)) for i in range(len(pairs)))
    if not names or not all(isinstance(name, str) for name in names):
        raise fields.wrong("id2label", f"names of the classes 0 to {len(names) - 1}")
    if count is not None and count != len(names):
        raise fields.wrong("num_labels", f"{len(names)}, the number of names in id2label")
    numbers = fields.values.get("label2id")
    if isinstance(numbers, dict):
        ids = cast("dict[str, Any]", numbers)
        if any(ids.get(str(name)) != i for i, name in enumerate(names) if names.count(name) == 1):
            raise fields.wrong("label2id", "the numbers that id2label gives the names")
    return cast("tuple[str, ...]", names)


def _require_known(path: files.AnyPath, values: Mapping[str, Any]) -> None:
    model_type = values.get("model_type")
    if model_type != _MODEL_TYPE:
        shown = json.dumps(model_type)[:60]
        raise DeepLabError(
            f"{path}: model_type={shown}; expected {_MODEL_TYPE}: of the networks of transformers, MobileNetV2 with "
            "the DeepLab head is read"
        )
    for name in values:
        if name not in _DEFAULTS and name not in _NEUTRAL and name not in _CLASSES:
            raise DeepLabError(
                f"{path}: {' '.join(name.split())[:60]!r} is not a field of MobileNetV2; what it changes is not known "
                "here, so nothing was loaded"
            )


def _plain(config: ModelConfig) -> ModelConfig:
    """Returns the configuration with as few options as give the same rows, as a network of the release has them."""
    units = ARCHITECTURES[config.model_variant].units
    for divisor in (None, config.divisible_by):
        plain = dataclasses.replace(config, divisible_by=divisor, smallest_width=None)
        if units(plain) == units(config):
            return plain
    return config


def read_folder(folder: files.AnyPath) -> Folder:
    """Returns what a folder of transformers' says of its network.

    Raises:
      DeepLabError: it is another network, or a field is not known, of the wrong type or contradicts another.
    """
    path = folder / CONFIG
    values = read_json(path)
    _require_known(path, values)
    fields = _Values(path, values, _DEFAULTS)
    if values.get("hidden_act", "relu6") != "relu6":
        raise fields.wrong("hidden_act", '"relu6"')
    names = _class_names(fields)
    architectures = values.get("architectures") or [_SEGMENTATION]
    segments = architectures == [_SEGMENTATION]
    epsilon = fields.number("layer_norm_eps")
    fields.flag("finegrained_output")  # the width of a convolution that segmentation does not run
    try:
        config = ModelConfig(
            model_variant=_MODEL_TYPE,
            num_classes=len(names) if segments else ModelConfig().num_classes,
            output_stride=fields.number("output_stride", whole=True),
            depth_multiplier=fields.number("depth_multiplier"),
            divisible_by=fields.number("depth_divisible_by", whole=True),
            smallest_width=fields.number("min_depth", whole=True),
            expand_ratio=fields.number("expand_ratio"),
            expand_first_block=not fields.flag("first_layer_is_expansion"),
            fixed_padding=not fields.flag("tf_padding"),
            batch_norm_epsilon=None if epsilon == _EPSILON else epsilon,
            input_channels=fields.number("num_channels", whole=True),
        )
    except DeepLabError as error:
        raise error if str(error).startswith(str(path)) else DeepLabError(f"{path}: {error}") from None
    placeholders = all(name == f"LABEL_{i}" for i, name in enumerate(names))
    return Folder(
        config=_plain(config),
        kind="segmentation" if segments else "backbone",
        class_names=() if placeholders or not segments else names,
        ignore_label=fields.number("semantic_loss_ignore_index", whole=True),
        notes=_processor_notes(folder / PROCESSOR),
    )


# ---- the image processor


def _side(value: object) -> str:
    """Returns a size of an image processor in words."""
    if isinstance(value, dict):
        sides = cast("dict[str, Any]", value)
        if "shortest_edge" in sides:
            return f"a shortest side of {sides['shortest_edge']}"
        return f"{sides.get('height')} x {sides.get('width')}"
    return f"{value}"


def _processor_notes(path: files.AnyPath) -> tuple[str, ...]:
    """Returns what an image processor does that `predict` does otherwise; one that feeds other values is refused."""
    if not path.is_file():
        return ()
    values = read_json(path)
    fields = _Values(path, values, {})
    factor = values.get("rescale_factor", 1 / 255)
    scaled = values.get("do_rescale", True) is True and isinstance(factor, float) and abs(factor * 255 - 1) < 1e-6
    if not scaled:
        raise fields.wrong("rescale_factor", "1 / 255 (and do_rescale true): the network reads -1 to 1")
    for name in ("image_mean", "image_std"):
        value = values.get(name, [0.5, 0.5, 0.5])
        if values.get("do_normalize", True) is not True or value not in ([0.5, 0.5, 0.5], 0.5):
            raise fields.wrong(name, "0.5 (and do_normalize true): the network reads -1 to 1")
    if values.get("do_flip_channel_order"):
        raise fields.wrong("do_flip_channel_order", "false: the network reads red, green, blue")
    notes: list[str] = []
    if values.get("do_resize", True) and "size" in values:
        notes.append(f"{PROCESSOR} resizes to {_side(values['size'])}; predict resizes by --resize and --longest_side")
    if values.get("do_center_crop", True) and "crop_size" in values:
        notes.append(f"{PROCESSOR} cuts out the middle, {_side(values['crop_size'])}; predict keeps the whole picture")
    return tuple(notes)


def processor_json(config: ModelConfig) -> dict[str, Any]:
    """Returns a preprocessor_config.json that feeds the network what it reads: pictures of its crop, or 513 x 513."""
    height, width = config.crop_size or (LONGEST_SIDE, LONGEST_SIDE)
    size = min(height, width)
    sides = {"height": size, "width": size}
    return {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": sides,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


# ---- back


def _hub_rules(config: ModelConfig) -> dict[str, Any]:
    """Returns the fields that give the widths of the rows.

    Raises:
      DeepLabError: no fields do.
    """
    units = ARCHITECTURES[config.model_variant].units
    free = 8 if config.depth_multiplier == 1.0 else 1
    divisor = config.divisible_by or free
    for smallest in (config.smallest_width or free, 1, 8):
        if units(dataclasses.replace(config, divisible_by=divisor, smallest_width=smallest)) == units(config):
            return {"depth_divisible_by": divisor, "min_depth": smallest}
    raise DeepLabError(
        f"depth_multiplier={config.depth_multiplier}: transformers rounds the channels otherwise at every "
        "depth_divisible_by and min_depth"
    )


def config_json(config: ModelConfig, class_names: tuple[str, ...], ignore_label: int) -> dict[str, Any]:
    """Returns the config.json that transformers builds the network of `config` from.

    Raises:
      DeepLabError: it has no such network; the message names the option.
    """
    head = ModelConfig(model_variant=_MODEL_TYPE, num_classes=config.num_classes)
    free = {
        *("output_stride", "depth_multiplier", "divisible_by", "smallest_width", "expand_ratio", "expand_first_block"),
        *("fixed_padding", "batch_norm_epsilon", "input_channels", "crop_size", "extra_band_means"),
    }
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in free and value != getattr(head, field.name) and value != ():
            raise DeepLabError(
                f"{field.name}={value}: transformers has no such network (only MobileNetV2 with image pooling and "
                "a 1x1 convolution)"
            )
    names = [name if class_names else f"LABEL_{i}" for i, name in enumerate(class_names or ("",) * config.num_classes)]
    return {
        "architectures": [_SEGMENTATION],
        "model_type": _MODEL_TYPE,
        "num_channels": config.input_channels,
        "depth_multiplier": config.depth_multiplier,
        **_hub_rules(config),
        "expand_ratio": config.expand_ratio,
        "output_stride": config.output_stride,
        "first_layer_is_expansion": not config.expand_first_block,
        "finegrained_output": True,
        "hidden_act": "relu6",
        "tf_padding": not config.fixed_padding,
        "layer_norm_eps": _EPSILON if config.batch_norm_epsilon is None else config.batch_norm_epsilon,
        "semantic_loss_ignore_index": ignore_label,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "torch_dtype": "float32",
    }
