"""The model directory: weights under the TF1 names, their description deeplab.json, and receipt.json."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, TypedDict

import keras
import numpy as np

from deeplab_tf import files
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.catalog.palettes import Palette, default_palette, pascal_palette
from deeplab_tf.config import ModelConfig
from deeplab_tf.documents.json_files import JSONError, read_json, typed
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.model import Network
from deeplab_tf.version import __version__
from deeplab_tf.weights.recognize import Kind
from deeplab_tf.weights.sources import MODEL_FILE, MODEL_PREFIX
from deeplab_tf.weights.tf1 import Receipt, save_tf1_checkpoint
from deeplab_tf.zoo.contamination import contamination

SIDES = ("letterbox", "training_side")  # of a card, which has them where they are known


class _Fields(TypedDict, total=False):
    """The fields of deeplab.json but `config` and `image`."""

    version: str
    kind: Kind
    dataset: str | None
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_label: int
    train_split: str | None
    source_checkpoint: str | None
    source_sha256: str | None
    output_stride: int | None
    averages: bool
    letterbox: int | None
    training_side: int | None


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """The description of a model, as a model directory keeps it in deeplab.json.

    Attributes:
      config: the network.
      kind: "segmentation" or "backbone" (without a head: weights to start from).
      dataset: the catalog's name of the data set whose classes it tells apart, or None.
      class_names, palette: the name and the colour (red, green, blue) of each class, in label order.
      ignore_label: the label that neither loss nor score counts.
      train_split: the split it was trained on, or None: not known.
      source_checkpoint, source_sha256: the weights' origin.
      output_stride: the output stride it was trained at, or None: not known.
      averages: whether to use the moving averages that lie beside the weights in their place.
      letterbox: side in pixels of the grey square that photographs were fitted into in training; None: they were not.
      training_side: median longest side in pixels of the pictures it was trained on, as it saw them before scales and
        crops; None: not known.
      image: what the photographs are that it reads, with the value range that brings them to 0..255; None: 8-bit RGB.
    """

    config: ModelConfig
    kind: Kind = "segmentation"
    dataset: str | None = None
    class_names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    ignore_label: int = 255
    train_split: str | None = None
    source_checkpoint: str | None = None
    source_sha256: str | None = None
    output_stride: int | None = None
    averages: bool = False
    letterbox: int | None = None
    training_side: int | None = None
    image: ImageFacts | None = None

    @property
    def shown_names(self) -> tuple[str, ...]:
        """The name of each class; "class 0" and so on where nothing says them."""
        return tuple(self.class_names) or tuple(f"class {i}" for i in range(self.config.num_classes))

    @property
    def shown_palette(self) -> Palette:
        """The colour of each class; where nothing says them, those made for telling apart."""
        return tuple(self.palette) or default_palette(self.shown_names) or pascal_palette(self.config.num_classes)

    def require_classes(self, verb: str, name: str | os.PathLike[str] | None = None) -> None:
        """Refuses a backbone.

        Args:
          verb: what the caller is about to do with the model: "export", "serve".
          name: the user's name of the weights; by default their origin.

        Raises:
          DeepLabError: the model is a backbone.
        """
        if self.kind != "segmentation":
            shown = self.source_checkpoint if name is None else os.fspath(name)
            raise DeepLabError(
                f"{shown}: a backbone without classes, to start training from; expected a model to {verb}"
            )

    def seen(self, dataset: str | None, split: str) -> str | None:
        """Returns a sentence that says why the weights have seen images of a split, or None: nothing says so.

        The training split counts, and the checkpoint that training began from.
        """
        return contamination(
            dataset,
            split,
            train_dataset=self.dataset,
            train_split=self.train_split,
            source=self.source_checkpoint,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the card as it is written to deeplab.json."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "image"}
        for name in SIDES:
            if values[name] is None:
                del values[name]
        image = {"image": self.image.to_json()} if self.image else {}
        return {"version": __version__, **values, "config": self.config.to_json(), **image}

    @classmethod
    def carried(cls, values: Mapping[str, Any], config: ModelConfig, source: object) -> "ModelCard":
        """Returns the card that a network carries (`Network.card`).

        Raises:
          DeepLabError: the values are not those of a card for the network of `config`; it names `source`.
        """
        image = values.get("image")
        known = {**values, "kind": "segmentation", "config": config, "averages": False}
        known.pop("version", None)
        known["image"] = None if image is None else ImageFacts.from_json(image, source)
        try:
            for name in ("class_names", "palette"):
                if not isinstance(values.get(name, []), list | tuple):
                    raise ValueError(f"{name}={str(values[name])[:60]}")
            known["class_names"] = tuple(values.get("class_names", ()))
            known["palette"] = tuple(tuple(colour) for colour in values.get("palette", ()))
            card = cls(**known)
            card.require_types()
        except (TypeError, ValueError) as error:
            raise DeepLabError(f"{source}: what it says of its classes is damaged ({error}); save it again") from None
        return card

    def require_types(self) -> None:
        """ValueError where a field is not what the network needs, or not of its type."""

        def require(name: str, good: bool) -> None:
            if not good:
                raise ValueError(f"{name}={str(getattr(self, name))[:60]}")

        names = self.class_names
        require("class_names", len(names) in (0, self.config.num_classes) and all(isinstance(n, str) for n in names))
        levels = [level for colour in self.palette for level in colour]
        require("palette", all(type(level) is int and 0 <= level <= 255 for level in levels))
        require("palette", all(len(colour) == 3 for colour in self.palette))
        require("palette", len(self.palette) in (0, *range(len(names), 257)))
        for name in ("dataset", "train_split", "source_checkpoint", "source_sha256"):
            require(name, isinstance(getattr(self, name), str | None))
        require("ignore_label", type(self.ignore_label) is int)
        require("output_stride", self.output_stride is None or type(self.output_stride) is int)
        for name in SIDES:
            side = getattr(self, name)
            require(name, side is None or (type(side) is int and side > 0))

    def attach(self, model: keras.Model) -> None:
        """Has a network carry the card in Keras's files; a backbone, which is a plain model of Keras, carries none."""
        if isinstance(model, Network):
            values = self.to_json()
            model.card = {
                name: values[name] for name in values if name not in ("version", "config", "kind", "averages")
            }

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "ModelCard":
        """Reads the deeplab.json of a model directory.

        Raises:
          DeepLabError: it is missing, or it is not a description of a model.
        """
        path = files.path(folder) / MODEL_FILE
        try:
            values = read_json(path, dict[str, Any])
            config, image = values.pop("config", None), values.pop("image", None)
            unknown = sorted(values.keys() - _Fields.__annotations__.keys())
            if unknown:
                raise JSONError(f"unknown field {unknown[0]!r}")
            fields: dict[str, Any] = {**typed(values, _Fields)}
            fields.pop("version", None)
            for name in SIDES:
                if fields.get(name) is not None and fields[name] < 1:
                    raise JSONError(f"{name}={fields[name]}, expected pixels")
            described = typed(config, dict[str, Any])
        except (OSError, JSONError) as error:
            raise DeepLabError(f"{path}: not a model directory's description ({error}); convert again") from None
        model = ModelConfig.from_json(described, source=str(path))
        facts = ImageFacts.from_json(image, path) if image is not None else None
        return cls(config=model, image=facts, **fields)


_FILES = (f"{MODEL_PREFIX}.data-00000-of-00001", f"{MODEL_PREFIX}.index", "checkpoint", "receipt.json", MODEL_FILE)


def check_target(folder: str | os.PathLike[str]) -> None:
    """Checks that a new model can be written to `folder`.

    Raises:
      DeepLabError: it is a file, or holds a model already.
    """
    folder = files.path(folder)
    if folder.exists() and not folder.is_dir():
        raise DeepLabError(f"{folder}: is a file; expected a folder to write")
    present = [name for name in _FILES if (folder / name).exists()]
    if present:
        raise DeepLabError(f"{folder}: already holds {', '.join(present)}; choose another folder or delete them first")


def _write_json(path: files.AnyPath, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def save_model(
    folder: str | os.PathLike[str],
    model: keras.Model,
    receipt: Receipt,
    *,
    card: ModelCard | None,
    state: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes a model directory: model.ckpt under the TF1 names, receipt.json and, with a `card`, deeplab.json.

    Without a card the folder is a plain TF1 checkpoint for the original code. A `checkpoint` file lets TensorFlow find
    it. global_step is always written, because the original's graphs ask for it.

    Args:
      folder: a new folder, or one without a model.
      model: a model of `build_model` or `build_backbone`.
      receipt: of the weights' origin.
      card: the model's description.
      state: more tensors by TF1 name; global_step is 0 if it is not among them.

    Raises:
      DeepLabError: the folder already holds a model, or cannot be written; then nothing is left in it.
    """
    check_target(folder)
    with files.growing(folder, _FILES if card else _FILES[:-1]) as partial:
        state = {"global_step": np.array(0, np.int64), **(state or {})}
        save_tf1_checkpoint(model, partial / MODEL_PREFIX, state=state)
        (partial / "checkpoint").write_text(f'model_checkpoint_path: "{MODEL_PREFIX}"\n', encoding="utf-8")
        _write_json(partial / "receipt.json", receipt.to_json())
        if card:
            _write_json(partial / MODEL_FILE, card.to_json())
