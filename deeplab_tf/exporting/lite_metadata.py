"""What a .tflite says of itself, as MediaPipe and other tools read it: labels, normalisation, what its outputs are.

The metadata are a FlatBuffer inside the file, and the labels a ZIP archive behind it; LiteRT passes over both. Source:
metadata_schema.fbs (1.5.0) and image_segmenter_metadata_schema.fbs (1.0.0), which the package mediapipe ships. They are
written by the numbers of their fields, because no package but that one has classes for them.
"""

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_tf.config import ExportConfig
from deeplab_tf.inference.tflite.convert import LiteModel
from deeplab_tf.inference.tflite.file import new_builder, pack, unpack
from deeplab_tf.version import __version__
from deeplab_tf.weights.lite_format import schema
from deeplab_tf.weights.model_directory import ModelCard

LABELS = "labels.txt"
_METADATA, _IDENTIFIER = b"TFLITE_METADATA", b"M001"
_SEGMENTER, _SEGMENTER_IDENTIFIER = "SEGMENTER_METADATA", b"V001"
_PARSER, _SEGMENTER_PARSER = "1.5.0", "1.0.0"  # the least versions of readers
_NONE, _SOFTMAX = 0, 2  # how MediaPipe makes probabilities of what the file gives
_AXIS_LABELS, _VALUE_LABELS = 2, 3  # a label for each channel, or for each value
_FEATURES, _IMAGE = 1, 2  # kinds of contents
_RGB = 1
_NORMALIZATION = 1  # a kind of process unit
_MOST_CLASSES = 256  # MediaPipe's masks are of bytes


@dataclasses.dataclass(frozen=True)
class _Byte:
    """A number of one byte: a kind."""

    value: int


@dataclasses.dataclass(frozen=True)
class _Table:
    """A table by the numbers of its fields; those that are None are left out."""

    fields: Mapping[int, Any]


def _vector(builder: Any, values: Sequence[Any]) -> int:
    """Returns the place of a vector of numbers, texts or tables."""
    if isinstance(values[0], float):
        return builder.CreateNumpyVector(np.asarray(values, "<f4"))
    places = [_put(builder, value) for value in values]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()


def _put(builder: Any, value: Any) -> int:
    """Returns the place at which a value now is in what is built."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, bytes):
        return builder.CreateNumpyVector(np.frombuffer(value, np.uint8))
    if isinstance(value, list):
        return _vector(builder, value)
    fields = {number: part for number, part in value.fields.items() if part is not None}
    places = {number: _put(builder, part) for number, part in fields.items() if not isinstance(part, _Byte | int)}
    builder.StartObject(max(fields, default=-1) + 1)
    for number, part in fields.items():
        if isinstance(part, _Byte):
            builder.PrependInt8Slot(number, part.value, 0)
        elif isinstance(part, int):
            builder.PrependUint32Slot(number, part, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, places[number], 0)
    return builder.EndObject()


def _built(table: _Table, identifier: bytes) -> bytes:
    builder = new_builder()
    builder.Finish(_put(builder, table), identifier)
    return bytes(builder.Output())


def _input(card: ModelCard, size: tuple[int, int]) -> _Table:
    """Returns the description of the images: MediaPipe feeds floats less the mean, divided by the deviation."""
    sized = _Table({0: size[1], 1: size[0]})
    low, high = _limits(card)
    return _Table(
        {
            0: "image",
            1: f"image of {size[0]} x {size[1]}, whose values are taken as they are",
            3: _Table({0: _Byte(_IMAGE), 1: _Table({0: _Byte(_RGB), 1: sized})}),
            4: [_Table({0: _Byte(_NORMALIZATION), 1: _Table({0: [0.0], 1: [1.0]})})],
            5: _Table({0: [high], 1: [low]}),
        }
    )


def _limits(card: ModelCard) -> tuple[float, float]:
    """Returns the least and the largest value of an image."""
    if card.image is None:
        return 0.0, 255.0
    return float(min(low for low, _ in card.image.range)), float(max(high for _, high in card.image.range))


def _output(card: ModelCard, output: str) -> _Table:
    scores = output != "predictions"
    what = {"predictions": "the class of each pixel", "probabilities": "probabilities of the classes, by pixels"}
    labels = _AXIS_LABELS if scores else _VALUE_LABELS
    file = _Table({0: LABELS, 1: "names of the classes, a line each", 2: _Byte(labels)})
    return _Table(
        {
            0: "segmentation_masks",
            1: what.get(output, "logits of the classes, by pixels"),
            3: _Table({0: _Byte(_FEATURES), 1: _Table({})}),
            6: [file] if card.class_names else None,
        }
    )


def _metadata(card: ModelCard, options: ExportConfig, size: tuple[int, int]) -> bytes:
    assert options.outputs is not None
    activation = _SOFTMAX if options.outputs == ("logits",) else _NONE
    segmenter = _built(_Table({0: _Byte(activation), 1: _SEGMENTER_PARSER}), _SEGMENTER_IDENTIFIER)
    trained = f" of {card.dataset}" if card.dataset else ""
    graph = _Table(
        {
            2: [_input(card, size)],
            3: [_output(card, output) for output in options.outputs],
            9: [_Table({0: _SEGMENTER, 1: segmenter})],
        }
    )
    return _built(
        _Table(
            {
                0: f"DeepLab, {card.config.model_variant}",
                1: f"Semantic segmentation: {card.config.num_classes} classes{trained}",
                2: f"deeplab_tf {__version__}",
                3: [graph],
                7: _PARSER,
            }
        ),
        _IDENTIFIER,
    )


def described(content: bytes, card: ModelCard, options: ExportConfig) -> bytes:
    """Returns a .tflite that says what it is.

    Args:
      content: of the file that `options` made of a model.
      card: of the model.
      options: of the export, with outputs.
    """
    classes, model = schema(), unpack(content)
    (graph,) = model.subgraphs
    _, height, width, _ = map(int, graph.tensors[graph.inputs[0]].shape)
    buffer, entry = classes.BufferT(), classes.MetadataT()
    buffer.data = np.frombuffer(_metadata(card, options, (height, width)), np.uint8)
    model.buffers.append(buffer)
    entry.name, entry.buffer = _METADATA, len(model.buffers) - 1
    model.metadata = [*(model.metadata or ()), entry]
    return _with_labels(pack(model), card.class_names)


def _with_labels(content: bytes, names: Sequence[str]) -> bytes:
    """Returns a file with an archive behind it that holds the names of the classes; without names as it is."""
    if not names:
        return content
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        lines = [" ".join(name.split()) for name in names]
        archive.writestr(zipfile.ZipInfo(LABELS), "\n".join(lines) + "\n")  # whose time is the same each time
    return stream.getvalue()


def mediapipe(content: bytes, card: ModelCard, options: ExportConfig) -> str:
    """Returns whether MediaPipe's ImageSegmenter gives the file's classes: "reads it", or "does not read it" and why.

    Tried with mediapipe 1.2.3. Scores smaller than the image give the same classes, and other probabilities.

    Args:
      content: of the .tflite.
      card: of the model.
      options: of the export, with outputs.
    """
    refusal = _refusal(card, options)
    if refusal is None and options.uint8_io and not LiteModel(content).takes_pixels:
        refusal = "its uint8 are not 0..255; export with --uint8_io=false"
    if refusal is not None:
        return f"does not read it: {refusal}"
    return "reads it" if options.export_upsample != "none" else "reads its classes, and enlarges probabilities its way"


def _refusal(card: ModelCard, options: ExportConfig) -> str | None:
    again = "export with --export_upsample=logits"
    if options.outputs == ("predictions",):
        averaged = "it averages scales or flips, which is for classes alone"
        return f"it gives classes, and MediaPipe expects scores; {averaged if options.averages else again}"
    if card.image is not None or card.config.input_channels != 3:
        return "it takes other images than RGB of 8 bits"
    if card.config.num_classes > _MOST_CLASSES:
        return f"it has {card.config.num_classes} classes, and MediaPipe's masks are of bytes"
    return None
