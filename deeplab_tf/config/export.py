"""ExportConfig: input, outputs and certificate of an exported file. Import it from deeplab_tf.config."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Literal, get_args

from deeplab_tf.config.fields import Options, option, path_option
from deeplab_tf.config.inference import Inference
from deeplab_tf.config.model import ModelConfig
from deeplab_tf.errors import DeepLabError, unknown_name

Format = Literal["saved_model", "frozen_pb", "tflite", "onnx", "openvino"]
Output = Literal["predictions", "probabilities", "logits"]
Precision = Literal["float32", "float16", "dynamic", "int8"]
Upsampling = Literal["none", "logits", "argmax"]
FORMATS: tuple[Format, ...] = get_args(Format)
# The label outside of the smaller pictures of a batch, in a SavedModel's answers and the server's.
LABEL_BEYOND = 255
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
UPSAMPLINGS: tuple[Upsampling, ...] = get_args(Upsampling)
_KIND = re.compile(r"\.(?!v\d)[a-z].*")  # an ending that names a kind of file; .v2, .0 and .2024 number a folder
SUFFIXES: Mapping[str, Format] = {".pb": "frozen_pb", ".tflite": "tflite", ".onnx": "onnx", ".xml": "openvino"}
_CORE_ML = "; Core ML runs on macOS alone, so no file of it is certified here: iOS runs a .tflite"
_OTHERS = {".mlpackage": _CORE_ML, ".mlmodel": _CORE_ML}
# The names of an exported graph's input and outputs: those of the release's frozen graphs, and one more.
INPUT = "ImageTensor"
OUTPUTS: Mapping[Output, str] = {
    "predictions": "SemanticPredictions",
    "probabilities": "SemanticProbabilities",
    "logits": "SemanticLogits",
}
# The share of pixels that must agree with the Keras model where min_agreement is unset.
_AGREEMENT: Mapping[Precision, float] = {"float32": 0.9999, "float16": 0.999, "dynamic": 0.97, "int8": 0.9}
# Of a network of quantised training: where a norm is folded in, the last bit of a map may be another, and its rounding.
_ROUNDED_AGREEMENT = 0.99


@dataclasses.dataclass(frozen=True)
class ExportConfig(Options, group="export"):
    """How a model is exported.

    The flags of the release's export_model.py that are not model flags, and those that TFLite and the certificate need
    beyond them.

    >>> deeplab_tf.ExportConfig(precision="float16").for_path("net.tflite").export_upsample
    'logits'
    """

    format: Format | None = option(
        None,
        "saved_model, frozen_pb (the release's frozen graph), tflite, onnx or openvino; unset: by the ending of the "
        "path (.pb, .tflite, .onnx, .xml), else saved_model",
        group="what",
    )
    outputs: tuple[Output, ...] | None = option(
        None,
        "outputs of the graph: predictions, probabilities, logits; unset: predictions, and for frozen_pb probabilities "
        "too, as in the release; for tflite see export_upsample",
    )
    inference_scales: tuple[float, ...] = option(
        (1.0,), "scales whose probabilities are averaged inside the graph", group="averaging"
    )
    add_flipped_images: bool = option(
        False, "also average over the horizontally flipped image inside the graph", group="averaging"
    )
    min_resize_value: int | None = option(
        None, "the graph first resizes images so that their shorter side has this many pixels", group="sizes"
    )
    max_resize_value: int | None = option(
        None, "but their longer side at most this many; needs min_resize_value", group="sizes"
    )
    resize_factor: int | None = option(
        None, "and both sides a multiple of this, plus one; needs min_resize_value", group="sizes"
    )
    save_inference_graph: bool = option(
        False, "also write the graph, without its weights, as inference_graph.pbtxt beside the export", group="what"
    )
    precision: Precision = option(
        "float32", "of a tflite: float32, float16 or dynamic (weights only), int8 (everything)", group="tflite"
    )
    export_upsample: Upsampling | None = option(
        None,
        "end of a tflite: none: logits at the network's stride; logits: at the size of the image, as MediaPipe reads "
        "them; argmax: classes; unset: logits, or argmax where scales or flips are averaged",
        group="tflite",
    )
    uint8_io: bool = option(
        True, "a tflite takes uint8 pixels, and an int8 one gives uint8 logits; false: float32", group="tflite"
    )
    representative_images: tuple[str, ...] | None = path_option(
        None,
        "files, folders or globs of images like those to come, about a hundred, from which int8 takes its ranges; a "
        "network of quantised training has its own",
        group="tflite",
    )
    images: tuple[str, ...] | None = path_option(
        None,
        "files, folders or globs of images for the certificate; unset: representative_images, else drawn shapes",
        group="certificate",
    )
    labels: str | None = path_option(
        None, "folder of labels, <stem>.png for each of these images, to score both models by", group="certificate"
    )
    num_images: int = option(8, "images that the certificate is made from, at most", group="certificate")
    min_agreement: float | None = option(
        None,
        "share of pixels in which the exported file must give the Keras model's class; unset: "
        + ", ".join(f"{share} for {precision}" for precision, share in _AGREEMENT.items())
        + f"; at most {_ROUNDED_AGREEMENT} for a network of quantised training",
        group="certificate",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format not in (None, *FORMATS):
            raise unknown_name("format", self.format, FORMATS)
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.export_upsample not in (None, *UPSAMPLINGS):
            raise unknown_name("export_upsample", self.export_upsample, UPSAMPLINGS)
        for output in self.outputs or ():
            if output not in OUTPUTS:
                raise unknown_name("value of outputs", output, OUTPUTS)
        self._require_averaged("inference_scales")
        self._require_at_least(1, "num_images")
        share = self.min_agreement
        self._require("min_agreement", share is None or 0 <= share <= 1, "expected a share from 0 to 1")
        self._require_resizing()
        self._require_scores()

    def _require_scores(self) -> None:
        averaged = "probabilities are averaged over scales and flips, so there are no logits; expected {}"
        expected = averaged.format("predictions or probabilities")
        self._require("outputs", not (self.averages and "logits" in (self.outputs or ())), expected)
        expected = averaged.format("argmax")
        self._require("export_upsample", not self.averages or self.export_upsample in (None, "argmax"), expected)

    def require_ranges(self, *, learned: bool, as_file: bool = False) -> None:
        """Raises DeepLabError where int8 would have no ranges or two sets of them.

        Its ranges are those of representative_images, or those that the network has `learned` in quantised training. A
        network that calculates `as_file` does so in integers, which nothing can round once more.
        """
        if self.precision != "int8":
            return
        expected = "the weights are those of a file of eight bits, which is that export; for another one give "
        expected += "--quantize_delay_step=-1 and --representative_images"
        self._require("precision", not as_file, expected)
        expected = "--precision=int8 needs them for its ranges: a folder of about a hundred images like those to come"
        self._require("representative_images", learned or bool(self.representative_images), expected)
        expected = "quantised training has given the network its ranges; leave it out, or give --quantize_delay_step=-1"
        self._require("representative_images", not (learned and self.representative_images), expected)

    @property
    def inference(self) -> Inference:
        """How images become classes inside the graph: scales and flip."""
        return Inference(self.inference_scales, self.add_flipped_images)

    @property
    def averages(self) -> bool:
        """Whether probabilities are averaged over scales or flips."""
        return self.inference.averages

    @property
    def required_agreement(self) -> float:
        """The share of pixels that must agree with the Keras model."""
        return _AGREEMENT[self.precision] if self.min_agreement is None else self.min_agreement

    def for_rounded(self) -> "ExportConfig":
        """Returns the options for a network of quantised training, which agrees less where nothing else is asked."""
        if self.min_agreement is not None:
            return self
        return dataclasses.replace(self, min_agreement=min(_ROUNDED_AGREEMENT, self.required_agreement))

    def for_path(self, path: str | os.PathLike[str], model: ModelConfig | None = None) -> "ExportConfig":
        """Returns the options with format and outputs set, and export_upsample of a tflite, for an export to `path`.

        A `model` that takes classes before they are upsampled ends with them unless something else is asked for.
        DeepLabError where the ending is unknown and no format is given, where format and ending contradict each other,
        or an option belongs to another format.
        """
        suffix = pathlib.PurePath(path).suffix.lower()
        ending = SUFFIXES.get(suffix)
        if ending is None and self.format is None and _KIND.fullmatch(suffix):
            raise DeepLabError(
                f"--export_path={path}: no export ends in {suffix}; expected {', '.join(SUFFIXES)}, or no ending for a "
                "folder with a SavedModel (with --format=saved_model, the folder may have this name)"
                + _OTHERS.get(suffix, "")
            )
        chosen = self.format or ending or "saved_model"
        if ending not in (None, chosen):
            raise DeepLabError(f"--format={chosen} contradicts the ending of --export_path={path}; change one of them")
        found = dataclasses.replace(self, format=chosen, export_upsample=self._upsampling(chosen, model))
        outputs = self.outputs or found._outputs_of(chosen)
        found = dataclasses.replace(found, outputs=outputs)
        found._require_format()
        expected = "a tflite has one output; choose it by --export_upsample"
        self._require("outputs", chosen != "tflite" or outputs == found._outputs_of(chosen), expected)
        return found

    def _upsampling(self, chosen: Format, model: ModelConfig | None) -> Upsampling | None:
        """Returns the end of a tflite where none is asked for; None for other formats."""
        if chosen != "tflite" or self.export_upsample:
            return self.export_upsample
        if self.outputs in (("predictions",), ("logits",)):
            return "argmax" if self.outputs == ("predictions",) else "logits"
        early = model is not None and not model.prediction_with_upsampled_logits
        return "argmax" if self.averages or early else "logits"

    def _outputs_of(self, chosen: Format) -> tuple[Output, ...]:
        """Returns the outputs of a format where none are asked for."""
        if chosen == "tflite":
            return ("predictions",) if self.export_upsample == "argmax" else ("logits",)
        return ("predictions", "probabilities") if chosen == "frozen_pb" else ("predictions",)

    def _require_format(self) -> None:
        lite = self.format == "tflite"
        for name, neutral in (("precision", "float32"), ("export_upsample", None), ("uint8_io", True)):
            self._require(
                name, lite or getattr(self, name) == neutral, f"belongs to --format=tflite, not {self.format}"
            )
        expected = "a tflite takes images of one size; resize them before, or choose another format"
        self._require("min_resize_value", not lite or self.min_resize_value is None, expected)
        expected = "belongs to --precision=int8; the others need no ranges"
        self._require("representative_images", self.precision == "int8" or not self.representative_images, expected)
        expected = "belongs to saved_model and frozen_pb"
        of_tensorflow = self.format in ("saved_model", "frozen_pb")
        self._require("save_inference_graph", not self.save_inference_graph or of_tensorflow, expected)
        given = self.images or self.representative_images
        expected = "needs --images (or --representative_images), the pictures they belong to"
        self._require("labels", not self.labels or bool(given), expected)
