"""The export of a model: SavedModel, the release's frozen graph, TFLite, ONNX, OpenVINO, each with a certificate."""

import contextlib
import dataclasses
import gc
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.config import ExportConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.certificate import (
    compare,
    compared_images,
    fitted,
    latency,
    machine,
    read_compared,
    require_agreement,
    require_portable,
    versions,
    write_certificate,
)
from deeplab_tf.exporting.formats import open_with_scores, write_graph_text
from deeplab_tf.exporting.lite_metadata import mediapipe
from deeplab_tf.exporting.target import GRAPH_TEXT, format_of, target_of
from deeplab_tf.inference.exported_file import RunExport
from deeplab_tf.inference.exported_predictor import takes_bytes
from deeplab_tf.inference.folded_graph import read_weights
from deeplab_tf.inference.graph import Segmentation, build_graph, build_graph_def
from deeplab_tf.inference.inputs import expand_inputs
from deeplab_tf.network.build import build_model
from deeplab_tf.network.sizes import needs_fixed_size
from deeplab_tf.weights import hub, hugging_face, keras_file
from deeplab_tf.weights.exported import files_of
from deeplab_tf.weights.loading import Loaded, open_model, opened
from deeplab_tf.weights.model_directory import SIDES, ModelCard
from deeplab_tf.weights.sources import MODEL_FILE, index_of, sha256_of, strip_checkpoint_suffix
from deeplab_tf.zoo import lookup

# The release's defaults of export_model.py, for weights that do not say what they were trained at.
RELEASE_STRIDE = 8
RELEASE_CROP = (513, 513)


# ---- what is exported


def _knows_trained_stride(path: str | os.PathLike) -> bool:
    """Returns whether `path` says at which output stride its weights were trained.

    A name of the zoo does, a model directory or a checkpoint in one, a file of Keras, which has the network, and a
    folder of transformers' or a repository of the Hub, whose config.json has it.
    """
    if hub.is_hub(path):
        return True
    file = files.path(path)
    prefix = strip_checkpoint_suffix(file)
    if keras_file.is_keras_file(file) or hugging_face.is_folder(file):
        return True
    inside = index_of(prefix).is_file() and (prefix.parent / MODEL_FILE).is_file()
    return inside or (file / MODEL_FILE).is_file() or (os.fspath(path) in lookup.CHECKPOINTS and not file.exists())


@dataclasses.dataclass(frozen=True)
class ExportSource:
    """Weights opened for an export.

    Attributes:
      loaded: the model, at the output stride of the export.
      stride_from: where that output stride comes from.
      trained_stride: the output stride that they were trained at; None if that is unknown.
    """

    loaded: Loaded
    stride_from: str
    trained_stride: int | None


def open_for_export(path: str | os.PathLike | keras.Model, changes: Mapping | None = None) -> ExportSource:
    """Opens weights at the output stride they are exported with.

    An explicit output_stride wins, then the one that was trained; weights whose training is unknown get the release's
    default for export, 8.

    Args:
      path: anything that `weights.loading.open_model` opens, or a model, which keeps its output stride.
      changes: explicit fields of ModelConfig.

    Raises:
      DeepLabError: as `weights.loading.open_model` raises it.
    """
    changes = dict(changes or {})
    if isinstance(path, keras.Model):
        return ExportSource(opened(path, changes), "the model's own", None)
    known = _knows_trained_stride(path)
    if "output_stride" in changes:
        loaded = open_model(path, changes)
        return ExportSource(loaded, "--output_stride", loaded.card.output_stride if known else None)
    if known:
        loaded = open_model(path, changes)
        if loaded.card.output_stride is not None:
            return ExportSource(loaded, "the model's own", loaded.card.output_stride)
    loaded = open_model(path, {**changes, "output_stride": RELEASE_STRIDE})
    return ExportSource(loaded, "the release's default for export", None)


def _at_size(loaded: Loaded, options: ExportConfig) -> tuple[keras.Model, ModelCard]:
    """Returns model and card with the crop size that the format needs."""
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


def _input(card: ModelCard, options: ExportConfig) -> tuple[tuple[int | None, ...], tf.DType]:
    """Returns the shape [b, h, w, channels] and the dtype of the images that the file takes; None for any size."""
    config = card.config
    channels = config.input_channels
    whole = tf.uint8 if takes_bytes(card) else tf.float32
    height, width = config.crop_size or (None, None)
    if options.format == "tflite":
        # For int8 the converter measures ranges on float inputs, and makes the input uint8 itself.
        plain = options.precision != "int8" and options.uint8_io
        return (1, height, width, channels), whole if plain else tf.float32
    if options.format in ("onnx", "openvino") and needs_fixed_size(config):
        return (None, height, width, channels), whole
    return (1 if options.format == "frozen_pb" else None, None, None, channels), whole


def _require_bytes_for_int8(card: ModelCard, options: ExportConfig) -> None:
    """Raises DeepLabError where int8 would round stored values of many thousand steps to 256."""
    if options.precision == "int8" and not takes_bytes(card):
        assert card.image is not None
        raise DeepLabError(
            f"--precision=int8: the model reads {card.image.describe()}, whose values eight bits cannot hold; expected "
            "float32, float16 or dynamic"
        )


def _representative(options: ExportConfig, card: ModelCard) -> Iterator[np.ndarray]:
    """Yields inputs, float32 [1, h, w, 3], on which the ranges of int8 are measured."""
    for file in expand_inputs(options.representative_images or ()):
        yield fitted(read_compared(file, card), card, card.config.crop_size).image[None].astype(np.float32)


# ---- the export


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
        "train_split": card.train_split,
        "class_names": card.class_names,
        "palette": card.palette,
        "ignore_label": card.ignore_label,
        **{name: getattr(card, name) for name in SIDES if getattr(card, name)},
        "options": {name: value for name, value in values.items() if value != getattr(defaults, name)},
    }


@contextlib.contextmanager
def _written(
    segmentation: Segmentation,
    inputs: tuple[tuple[int | None, ...], tf.DType],
    path: pathlib.Path,
    representative: Iterable[np.ndarray],
) -> Iterator[Callable[[], RunExport]]:
    """Writes the file at `path`; yields what opens it so that it also gives scores, to compare probabilities."""
    options = segmentation.options
    form = format_of(options)

    def write(choice: ExportConfig, place: pathlib.Path) -> None:
        graph = build_graph(dataclasses.replace(segmentation, options=choice), *inputs)
        form.write(graph, choice, place, representative)
        gc.collect()  # functions refer to themselves, and so keep their weights until then

    if options.outputs != ("predictions",) or options.format == "tflite":
        write(options, path)
        opened = form.open if options.outputs != ("predictions",) else open_with_scores
        yield lambda: opened(path, options)
        return
    # A twin of the file that also gives probabilities: the graph is the same up to its end.
    with_scores = dataclasses.replace(options, outputs=("predictions", "probabilities"))
    with tempfile.TemporaryDirectory(prefix="deeplab_tf-") as folder:
        twin = pathlib.Path(folder) / (form.file or "")
        write(with_scores, twin)
        if form.without_scores:
            form.without_scores(twin, options, path)
        else:
            write(options, path)
        yield lambda: form.open(twin, with_scores)
    gc.collect()


def export_opened(opened: ExportSource, export_path: str | os.PathLike, options: ExportConfig) -> dict:
    """Writes opened weights in a format for use elsewhere, as `export` does, and returns the certificate."""
    options = options.for_path(export_path, opened.loaded.card.config)
    target = target_of(export_path, options)
    target.check()
    if target.format.needs:
        target.format.needs()
    opened.loaded.card.require_classes("export")
    network = opened.loaded.card.config
    options.require_ranges(learned=network.quantized, as_file=network.quantized and network.quantize_as_file)
    model, card = _at_size(opened.loaded, options)
    options = options.for_rounded() if card.config.quantized else options
    _require_bytes_for_int8(card, options)
    shape, dtype = _input(card, options)
    _, height, width, _ = shape
    pictures = list(compared_images(options, card, (height, width) if height and width else None))
    segmentation = Segmentation(card.config, read_weights(model), options, target.format.target, card.image)
    with target.growing(options) as folder:
        path = folder / target.export
        with _written(segmentation, (shape, dtype), path, _representative(options, card)) as open_scoring:
            if target.format.describe:
                target.format.describe(path, card, options)
            operations = target.format.operations(path)
            require_portable(operations, export_path)
            figures = compare(model, open_scoring(), pictures, card, options)
        require_agreement(figures, options, export_path)
        run = target.format.open(path, options)
        certificate = {
            "file": str(export_path),
            **_description(opened, card, options),
            "input_shape": shape,
            **({"input_dtype": dtype.name, "image": card.image.to_json()} if card.image else {}),
            **figures,
            "min_agreement": options.required_agreement,
            "bytes": sum(file.stat().st_size for file in files_of(path)),
            "sha256": sha256_of(*files_of(path)),
            "latency": latency(run, pictures[0].image),
            "machine": machine(),
            "versions": versions(target.format.packages),
            "operations": operations,
            **({"mediapipe": mediapipe(path.read_bytes(), card, options)} if options.format == "tflite" else {}),
        }
        write_certificate(certificate, folder / target.certificate)
        if options.save_inference_graph:
            write_graph_text(build_graph_def(segmentation, shape, dtype), folder / GRAPH_TEXT)
    return certificate


def export(
    checkpoint: str | os.PathLike | keras.Model,
    export_path: str | os.PathLike,
    options: ExportConfig | None = None,
    **changes: object,
) -> dict:
    """Writes a model in a format for use elsewhere, with a certificate that the file does what the Keras model does.

    The file is run on pictures and compared with `predict` of the Keras model. If they agree less than required, and
    after any other error, nothing is left behind.

    Args:
      checkpoint: anything that `load` takes, or a model from `build_model` or `load`, also one that Keras has loaded,
        cloned or wrapped (see `predict`).
      export_path: a file that ends in .pb, .tflite, .onnx or .xml (which gets its .bin beside it), with
        `<file>.certificate.json` beside it; otherwise a folder to make, which then holds certificate.json.
      options: format, outputs, precision and so on.
      **changes: fields of ModelConfig, for instance crop_size=(257, 257). Without output_stride the trained one is
        taken, or 8 if that is unknown; a tflite without crop_size is for 513 x 513.

    Returns:
      The certificate: agreement, differences, mIoU, size, latency, operations, versions.

    Raises:
      DeepLabError: options contradict each other, weights or images cannot be read, the place is taken or cannot be
        written, a package is missing, or the conversion fails or does not agree with the model.

    Example:
      The network of the tests, with random weights, as a SavedModel for the release's ImageTensor:

      >>> model = deeplab_tf.build_model(deeplab_tf.ModelConfig("tiny", num_classes=3, crop_size=(33, 33)))
      >>> deeplab_tf.save_tf1_checkpoint(model, "model.ckpt")
      >>> options = deeplab_tf.ExportConfig(num_images=1)
      >>> certificate = deeplab_tf.export("model.ckpt", "exported", options, crop_size=(33, 33))
      >>> certificate["images"], certificate["agreement"] > 0.999
      (1, True)
    """
    options = options or ExportConfig()
    target_of(export_path, options.for_path(export_path)).check()
    return export_opened(open_for_export(checkpoint, changes), export_path, options)
