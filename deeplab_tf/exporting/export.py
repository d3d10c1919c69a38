"""Exporting a model: SavedModel, the release's frozen graph, TFLite, ONNX; each with a certificate, or not at all."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.config.export import SUFFIXES
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.certificate import (
    CERTIFICATE,
    compare,
    examples,
    fitted,
    latency,
    machine,
    require_agreement,
    require_portable,
    versions,
    write_certificate,
)
from deeplab_tf.exporting.formats import FORMATS, Format, RunExport, files_of, open_with_scores, write_graph_text
from deeplab_tf.inference.files import expand_inputs
from deeplab_tf.inference.graph import Segmentation, build_graph_def, read_weights
from deeplab_tf.network.model import build_model
from deeplab_tf.network.sizes import needs_fixed_size
from deeplab_tf.ops.images import read_image
from deeplab_tf.weights.loading import Loaded, open_model
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.sources import MODEL_FILE, sha256_of, strip_checkpoint_suffix
from deeplab_tf.zoo import lookup

# The release's defaults of export_model.py, for weights that do not say what they were trained at.
RELEASE_STRIDE, RELEASE_CROP = 8, (513, 513)
_GRAPH_TEXT = "inference_graph.pbtxt"


# ---- what is exported


def _remembers(path: str | os.PathLike) -> bool:
    """Whether `path` says what its weights were trained at: a name of the zoo, a model directory or a
    checkpoint in one."""
    found = pathlib.Path(path).expanduser()
    prefix = strip_checkpoint_suffix(found)
    inside = prefix.with_name(f"{prefix.name}.index").is_file() and (prefix.parent / MODEL_FILE).is_file()
    return inside or (found / MODEL_FILE).is_file() or (os.fspath(path) in lookup.CHECKPOINTS and not found.exists())


@dataclasses.dataclass(frozen=True)
class ExportSource:
    """Weights opened for an export: at which output stride, why, and which one they were trained at, where that is
    known."""

    loaded: Loaded
    stride_from: str
    trained_stride: int | None


def open_for_export(path: str | os.PathLike, changes: Mapping | None = None) -> ExportSource:
    """Opens weights at the output stride they are exported with.

    An explicit output_stride wins, then the one that was trained; weights that do not remember theirs get the
    release's default for export, 8. Arguments and errors: `loading.open_model`.
    """
    changes, remembers = dict(changes or {}), _remembers(path)
    loaded, origin = None, "--output_stride"
    if "output_stride" in changes or remembers:
        loaded = open_model(path, changes)
    trained = loaded.card.output_stride if remembers else None
    if "output_stride" not in changes:
        origin = "the model's own"
        if trained is None:
            loaded = open_model(path, {**changes, "output_stride": RELEASE_STRIDE})
            origin = "the release's default for export"
    return ExportSource(loaded, origin, trained)


def _at_size(loaded: Loaded, options: ExportConfig) -> tuple[keras.Model, ModelCard]:
    """Returns model and card with the crop that the format needs."""
    config = loaded.card.config
    if options.format == "tflite" and config.crop_size and min(config.crop_size) <= config.output_stride:
        raise DeepLabError(
            f"--crop_size={','.join(map(str, config.crop_size))}: too small for a tflite, of fixed shape; expected "
            f"sides above the output stride, {config.output_stride}"
        )
    if config.crop_size or not (options.format == "tflite" or needs_fixed_size(config)):
        return loaded.model, loaded.card
    config = dataclasses.replace(config, crop_size=RELEASE_CROP)
    return build_model(config, share_with=loaded.model), dataclasses.replace(loaded.card, config=config)


def _input(config: ModelConfig, options: ExportConfig) -> tuple[tuple[int | None, ...], tf.DType]:
    """Returns shape and dtype of the images that the file takes."""
    if options.format == "tflite":
        # The converter's ranges come from float inputs; it makes them uint8 itself.
        plain = options.precision != "int8" and options.uint8_io
        return (1, *config.crop_size, 3), tf.uint8 if plain else tf.float32
    if options.format == "onnx" and needs_fixed_size(config):
        return (None, *config.crop_size, 3), tf.uint8
    return (1 if options.format == "frozen_pb" else None, None, None, 3), tf.uint8


def _representative(options: ExportConfig, card: ModelCard) -> Iterator[np.ndarray]:
    """Yields inputs [1, h, w, 3] for the ranges of int8."""
    for file in expand_inputs(options.representative_images or ()):
        yield fitted(read_image(file), card, card.config.crop_size).image[None].astype(np.float32)


# ---- where it goes


@dataclasses.dataclass(frozen=True)
class _Target:
    """Where an export goes: a folder of its own, or a file with its certificate beside it."""

    path: pathlib.Path
    form: Format
    folder: bool

    @property
    def names(self) -> dict[str, str]:
        """What is written -> its final name, in the folder or beside the file."""
        if self.folder:
            return {name: name for name in (self.form.file or "", CERTIFICATE, _GRAPH_TEXT)}
        return {
            self.form.file: self.path.name,
            CERTIFICATE: f"{self.path.name}.{CERTIFICATE}",
            _GRAPH_TEXT: _GRAPH_TEXT,
        }

    def check(self):
        """Raises DeepLabError where something is there already, or nothing can be written."""
        try:
            self._check()
        except OSError as error:  # a name that is too long
            raise self._unwritable(error.strerror or error) from None

    def _check(self):
        if self.folder:
            taken = self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir()))
            present = [self.path] if taken else []
        else:
            present = [path for name in self.names.values() if (path := self.path.parent / name).exists()]
        if present:
            what = f"{present[0]} is there already"
            raise DeepLabError(f"--export_path={self.path}: {what}; choose another, or delete it")
        parent = next(parent for parent in self.path.absolute().parents if parent.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
            raise self._unwritable(f"{parent} is no folder that can be written")

    def _unwritable(self, reason: object) -> DeepLabError:
        return DeepLabError(f"--export_path={self.path}: cannot be written ({reason}); choose another folder")

    @contextlib.contextmanager
    def growing(self) -> Iterator[pathlib.Path]:
        """Gives a folder; what is in it takes its place when all went well."""
        made = [parent for parent in self.path.parents if not parent.exists()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".partial-", dir=self.path.parent) as folder:
                content = pathlib.Path(folder) / "export"
                content.mkdir()
                yield content
                if self.folder:
                    os.replace(content, self.path)
                    return
                for name, final in self.names.items():
                    if (content / name).exists():
                        os.replace(content / name, self.path.parent / final)
        except OSError as error:
            raise self._unwritable(error.strerror or error) from None
        finally:
            for parent in made:
                with contextlib.suppress(OSError):
                    parent.rmdir()  # refuses where something was written


def check_export_path(export_path: str | os.PathLike, options: ExportConfig):
    """Raises DeepLabError where an export cannot go to `export_path`; `options` are those of `for_path`."""
    _target(export_path, options).check()


def _target(export_path: str | os.PathLike, options: ExportConfig) -> _Target:
    path, form = pathlib.Path(export_path).expanduser(), FORMATS[options.format]
    return _Target(path, form, folder=form.file is None or path.suffix.lower() not in SUFFIXES)


# ---- the verb


def _description(opened: ExportSource, card: ModelCard, options: ExportConfig) -> dict:
    defaults = ExportConfig()
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    stride = {"exported": card.config.output_stride, "from": opened.stride_from, "trained": opened.trained_stride}
    weights = opened.loaded.receipt
    return {
        "checkpoint": weights.source,
        "checkpoint_sha256": weights.sha256,
        "source_checkpoint": card.source_checkpoint,
        "source_sha256": card.source_sha256,
        "model": card.config.to_json(),
        "output_stride": stride,
        "dataset": card.dataset,
        "class_names": card.class_names,
        "options": {name: value for name, value in values.items() if value != getattr(defaults, name)},
    }


def _scored(segmentation: Segmentation, inputs: tuple, path: pathlib.Path, run: RunExport) -> RunExport:
    """Returns what runs the file and also gives scores, so that probabilities can be compared."""
    options = segmentation.options
    if options.outputs != ("predictions",):
        return run
    if options.format == "tflite":
        return open_with_scores(path, options)
    # These formats are written in a moment, and the graph is the same up to its end.
    form, options = FORMATS[options.format], dataclasses.replace(options, outputs=("predictions", "probabilities"))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        twin = pathlib.Path(folder) / (form.file or "")
        form.write(build_graph_def(dataclasses.replace(segmentation, options=options), *inputs), options, twin, ())
        return form.open(twin, options)


def export_opened(opened: ExportSource, export_path: str | os.PathLike, options: ExportConfig) -> dict:
    """Exports opened weights; see `export`."""
    options = options.for_path(export_path)
    target = _target(export_path, options)
    target.check()
    target.form.needs()
    opened.loaded.card.require_classes("export")
    options.require_ranges(learned=opened.loaded.card.config.quantized)
    model, card = _at_size(opened.loaded, options)
    shape, dtype = _input(card.config, options)
    pictures = list(examples(options, card, None if None in shape[1:3] else shape[1:3]))
    segmentation = Segmentation(card.config, read_weights(model), options, target.form.target)
    graph_def = build_graph_def(segmentation, shape, dtype)
    with target.growing() as folder:
        path = folder / (target.form.file or "")
        target.form.write(graph_def, options, path, _representative(options, card))
        operations, files = target.form.operations(path), files_of(path)
        require_portable(operations, export_path)
        run = target.form.open(path, options)
        scored = _scored(segmentation, (shape, dtype), path, run)
        figures = compare(model, scored, pictures, card, options)
        require_agreement(figures, options, export_path)
        certificate = {
            "file": str(export_path),
            **_description(opened, card, options),
            "input_shape": shape,
            **figures,
            "min_agreement": options.required_agreement,
            "bytes": sum(file.stat().st_size for file in files),
            "sha256": sha256_of(*files),
            "latency": latency(run, pictures[0].image),
            "machine": machine(),
            "versions": versions(target.form.packages),
            "operations": operations,
        }
        write_certificate(certificate, folder / CERTIFICATE)
        if options.save_inference_graph:
            write_graph_text(graph_def, folder / _GRAPH_TEXT)
    return certificate


def export(
    checkpoint: str | os.PathLike, export_path: str | os.PathLike, options: ExportConfig | None = None, **changes
) -> dict:
    """Writes a model in a format for use elsewhere, with a certificate that it does what the Keras model does.

    The file is run on pictures and compared with `predict` of the Keras model; below the asked-for agreement, and
    after any other error, nothing is left behind.

    Args:
      checkpoint: anything `load` takes.
      export_path: a file that ends in .pb, .tflite or .onnx, which gets <file>.certificate.json beside it; otherwise a
        folder to make, which then holds certificate.json.
      options: format, outputs, precision and so on.
      changes: fields of ModelConfig, for instance crop_size=(257, 257). Without an output_stride it is the one that was
        trained, or 8 where the weights do not tell; a tflite without a crop_size is for 513 x 513.

    Returns:
      The certificate: agreement, differences, mIoU, size, latency, operations, versions.

    Raises:
      DeepLabError: options that cannot go together, weights or images that cannot be read, a place that is taken or
        cannot be written, a package that is missing, a conversion that fails or does not agree.
    """
    options = (options or ExportConfig()).for_path(export_path)
    check_export_path(export_path, options)
    return export_opened(open_for_export(checkpoint, changes), export_path, options)
