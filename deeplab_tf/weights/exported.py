"""Exported files by their certificates: which file, in which format, of which network, with which classes."""

import dataclasses
import os
from typing import Any, TypedDict, cast

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.config.export import SUFFIXES, Format
from deeplab_tf.documents.json_files import read_json
from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.weights.hub import is_hub
from deeplab_tf.weights.kinds import EXPORTED, FILE_NAMES, certificate_of
from deeplab_tf.weights.model_directory import SIDES, ModelCard
from deeplab_tf.weights.sources import sha256_of

_SAVED_MODEL_FILES = ("saved_model.pb", "fingerprint.pb", "variables/*", "assets/*")
_INPUT_RANK = 4


def weights_beside(path: files.AnyPath) -> files.AnyPath:
    """Returns the .bin that belongs to an OpenVINO model, whose .xml is at `path`."""
    return path.with_suffix(".bin")


def files_of(path: files.AnyPath) -> list[files.AnyPath]:
    """Returns the files of the export at `path`: those of a SavedModel if it is a folder, else the file itself.

    Those of an OpenVINO model are two.
    """
    if path.is_dir():
        return [file for part in _SAVED_MODEL_FILES for file in sorted(path.glob(part))]
    return [path, weights_beside(path)] if SUFFIXES.get(path.suffix.lower()) == "openvino" else [path]


class _Stride(TypedDict):
    trained: int | None


class _OfLaterVersions(TypedDict, total=False):
    """The fields that certificates of earlier versions lack."""

    palette: tuple[tuple[int, int, int], ...]
    ignore_label: int
    train_split: str | None
    letterbox: int | None
    training_side: int | None
    image: dict[str, Any] | None
    checkpoint_sha256: str | None


class _Certificate(_OfLaterVersions):
    """The fields of a certificate that running the file needs."""

    options: ExportConfig
    model: dict[str, Any]
    dataset: str | None
    class_names: tuple[str, ...]
    output_stride: _Stride
    input_shape: tuple[int | None, ...]
    checkpoint: str
    source_checkpoint: str | None
    source_sha256: str | None
    sha256: str


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported file, or the folder of a SavedModel, as its certificate describes it.

    Attributes:
      path: of the file, or of the folder of a SavedModel.
      options: it was exported with; format and outputs are set.
      card: of the model that it computes; its config has the crop of the export.
      shape: the images [b, h, w, channels] that it takes; None for any number and any size.
      checkpoint: what it was exported from.
      sha256: of the file, or of all files of a SavedModel.
      checkpoint_sha256: of the weights that it was exported from; None: not known.
    """

    path: files.AnyPath
    options: ExportConfig
    card: ModelCard
    shape: tuple[int | None, ...]
    checkpoint: str
    sha256: str
    checkpoint_sha256: str | None = None

    @property
    def kind(self) -> str:
        """What it is, by its format: a SavedModel."""
        return EXPORTED[cast(Format, self.options.format)]

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the images that it takes; None: any."""
        _, height, width, _ = self.shape
        return (height, width) if height and width else None

    @property
    def gives_probabilities(self) -> bool:
        """Whether probabilities can be had from what it gives."""
        return self.options.outputs != ("predictions",)

    def require_unchanged(self) -> None:
        """Raises DamagedError where the file is not the one that was certified."""
        for file in (self.path, *files_of(self.path)):
            if not file.exists():
                raise DeepLabError(f"{file}: is missing, and its certificate is there; export again")
        if sha256_of(*files_of(self.path)) != self.sha256:
            raise DamagedError(
                f"{self.path}: is not the file that its certificate describes: damaged, truncated or replaced (its "
                "SHA-256 differs); copy both again, or export again"
            )


def find_export(path: str | os.PathLike[str]) -> Export | None:
    """Returns the export at `path`, as its certificate describes it; None: no certificate is there.

    Args:
      path: an exported file, the folder that it was exported to, or the folder or the saved_model.pb of a SavedModel.

    Raises:
      DeepLabError: the certificate is damaged.
    """
    if is_hub(path):
        return None
    found = certificate_of(files.path(path))
    if found is None:
        return None
    place, certificate = found
    try:
        return _described(place, read_json(certificate, _Certificate), certificate)
    except (OSError, DeepLabError) as error:
        if str(certificate) in str(error) and isinstance(error, DeepLabError):
            raise
        raise DeepLabError(
            f"{certificate}: is damaged, or not a certificate of deeplab-tf export ({error}); export again"
        ) from None


def _described(place: files.AnyPath, values: _Certificate, certificate: files.AnyPath) -> Export:
    """Returns the export that the fields of a certificate describe."""
    options = values["options"]
    if options.format is None or not options.outputs:
        raise DeepLabError(f"{certificate}: its options lack format or outputs; export again")
    if place.is_dir():
        place = place / (FILE_NAMES[options.format] or "")
    elif SUFFIXES.get(place.suffix.lower(), options.format) != options.format:
        raise DeepLabError(f"{certificate}: is that of {EXPORTED[options.format]}, not of {place.name}; export again")
    shape = values["input_shape"]
    sides = [side for side in shape if side is not None]
    if len(shape) != _INPUT_RANK or not all(0 < side < 1 << 20 for side in sides):
        raise DeepLabError(f"{certificate}: input_shape={shape!r}; expected images [b, h, w, channels]")
    return Export(
        path=place,
        options=options,
        card=_card(values, certificate),
        shape=shape,
        checkpoint=" ".join(values["checkpoint"].split()),
        sha256=values["sha256"],
        checkpoint_sha256=values.get("checkpoint_sha256"),
    )


def _card(values: _Certificate, certificate: files.AnyPath) -> ModelCard:
    """Returns the description of the model of an export; palettes of earlier versions follow from the data set."""
    config = ModelConfig.from_json(values["model"], source=str(certificate))
    facts = DATASETS.get(values["dataset"] or "")
    names = values["class_names"]
    palette = values.get("palette", facts.palette if facts and facts.class_names == names else ())
    if names and len(names) != config.num_classes:
        raise DeepLabError(f"{certificate}: names {len(names)} classes of {config.num_classes}; export again")
    if not all(0 <= part <= 255 for colour in palette for part in colour):
        raise DeepLabError(f"{certificate}: palette: expected colours of 0..255; export again")
    image = values.get("image")
    sides = {name: cast(int | None, values.get(name)) for name in SIDES}
    for name, side in sides.items():
        if side is not None and side < 1:
            raise DeepLabError(f"{certificate}: {name}={side!r}; expected pixels")
    return ModelCard(
        config=config,
        dataset=values["dataset"],
        class_names=names,
        palette=palette,
        ignore_label=values.get("ignore_label", facts.ignore_label if facts else ModelCard.ignore_label),
        train_split=values.get("train_split"),
        source_checkpoint=values["source_checkpoint"],
        source_sha256=values["source_sha256"],
        output_stride=values["output_stride"]["trained"],
        letterbox=sides["letterbox"],
        training_side=sides["training_side"],
        image=ImageFacts.from_json(image, certificate) if image else None,
    )
