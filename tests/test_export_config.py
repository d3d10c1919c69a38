"""What the options of an export refuse, and what follows from the ending of the path."""

import dataclasses

import pytest

import deeplab_tf
from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.config.export import OUTPUTS
from deeplab_tf.errors import DeepLabError


def test_it_is_public():
    assert deeplab_tf.ExportConfig is ExportConfig


@pytest.mark.parametrize(
    ("path", "given", "chosen"),
    [
        ("out", None, "saved_model"),
        ("out.v2", None, "saved_model"),
        ("mobilenet_v2_1.0", None, "saved_model"),
        ("folder.mlpackage", "saved_model", "saved_model"),
        ("out/frozen_inference_graph.pb", None, "frozen_pb"),
        ("a.tflite", None, "tflite"),
        ("a.onnx", None, "onnx"),
        ("a.xml", None, "openvino"),
        ("out", "tflite", "tflite"),
        ("a.onnx", "onnx", "onnx"),
    ],
)
def test_format_by_the_ending(path, given, chosen):
    assert ExportConfig(format=given).for_path(path).format == chosen


def test_outputs_by_the_format():
    def outputs(path, **options):
        return ExportConfig(**options).for_path(path).outputs

    assert outputs("out") == outputs("a.onnx") == ("predictions",)
    assert outputs("a.pb") == ("predictions", "probabilities")  # official_release.md 6.3
    assert outputs("a.pb", outputs=("predictions",)) == ("predictions",)
    assert outputs("out", outputs=("logits", "probabilities")) == ("logits", "probabilities")
    assert outputs("a.tflite", export_upsample="argmax") == ("predictions",)
    assert outputs("a.tflite", export_upsample="none") == outputs("a.tflite", export_upsample="logits") == ("logits",)
    twice = ExportConfig().for_path("a.tflite").for_path("a.tflite")
    assert twice == ExportConfig().for_path("a.tflite")


def test_the_end_of_a_tflite():
    """MediaPipe reads scores; where there are none, or others than the model takes its classes from, it is classes."""

    def end(model=None, **options):
        found = ExportConfig(**options).for_path("a.tflite", model)
        return found.export_upsample, found.outputs

    logits, classes = ("logits", ("logits",)), ("argmax", ("predictions",))
    assert end() == end(ModelConfig("tiny")) == end(outputs=("logits",)) == logits
    assert end(outputs=("predictions",)) == end(add_flipped_images=True) == classes
    late = ModelConfig("tiny", prediction_with_upsampled_logits=False)
    assert end(late) == classes and end(late, export_upsample="logits") == logits
    assert ExportConfig().for_path("a.pb").export_upsample is None


def test_names_are_those_of_the_release():
    assert OUTPUTS["predictions"] == "SemanticPredictions" and OUTPUTS["probabilities"] == "SemanticProbabilities"


def test_agreement_asked_for():
    def asked(**options):
        return ExportConfig(**options).required_agreement

    assert asked() == 0.9999 and asked(precision="float16") == 0.999  # issue 4, acceptance 1
    assert asked(precision="int8") < asked(precision="dynamic") < asked(precision="float16")
    assert asked(min_agreement=0.5) == 0.5 and asked(precision="int8", min_agreement=0.0) == 0.0


def test_averages():
    assert not ExportConfig().averages
    assert ExportConfig(add_flipped_images=True).averages
    assert ExportConfig(inference_scales="0.5,1.0").averages
    assert not ExportConfig(inference_scales="1").averages


WRONG = [
    ({"format": "tf_lite"}, "unknown format 'tf_lite'; did you mean tflite"),
    ({"precision": "int16"}, "unknown precision 'int16'; did you mean int8"),
    ({"export_upsample": "argmin"}, "unknown export_upsample 'argmin'; did you mean argmax"),
    ({"outputs": ("labels",)}, "unknown value of outputs 'labels'"),
    ({"inference_scales": (0.5, -1.0)}, "inference_scales=(0.5, -1.0): expected scales above 0"),
    ({"inference_scales": ()}, "inference_scales=None: expected scales"),
    ({"num_images": 0}, "num_images=0: expected a number of at least 1"),
    ({"min_agreement": 99.0}, "min_agreement=99.0: expected a share from 0 to 1"),
    ({"max_resize_value": 513}, "max_resize_value=513: needs min_resize_value"),
    ({"min_resize_value": -1}, "min_resize_value=-1: expected a number of pixels"),
    (
        {"add_flipped_images": True, "outputs": ("logits",)},
        "no logits; expected predictions or probabilities",
    ),
    ({"inference_scales": (0.5,), "export_upsample": "none"}, "there are no logits; expected argmax"),
]


@pytest.mark.parametrize(("options", "expected"), WRONG)
def test_wrong_values(options, expected):
    with pytest.raises(DeepLabError) as caught:
        ExportConfig(**options)
    assert expected in str(caught.value)


WRONG_FOR = [
    (
        "x.mlpackage",
        {},
        "--export_path=x.mlpackage: no export ends in .mlpackage; expected .pb, .tflite, .onnx, .xml, or",
    ),
    (
        "x.mlpackage",
        {},
        "this name); Core ML runs on macOS alone, so no file of it is certified here: iOS runs a .tflite",
    ),
    ("x.H5", {}, "no export ends in .h5"),
    ("a.tflite", {"format": "onnx"}, "--format=onnx contradicts the ending of --export_path=a.tflite"),
    ("a.pb", {"format": "saved_model"}, "--format=saved_model contradicts"),
    ("out", {"precision": "int8", "representative_images": ("x",)}, "precision='int8': belongs to --format=tflite"),
    ("a.onnx", {"export_upsample": "none"}, "export_upsample='none': belongs to --format=tflite, not onnx"),
    ("a.pb", {"uint8_io": False}, "uint8_io=False: belongs to --format=tflite"),
    ("a.tflite", {"outputs": ("probabilities",)}, "a tflite has one output; choose it by --export_upsample"),
    ("a.tflite", {"min_resize_value": 257}, "a tflite takes images of one size"),
    ("a.tflite", {"representative_images": ("x",)}, "belongs to --precision=int8"),
    ("a.onnx", {"save_inference_graph": True}, "belongs to saved_model and frozen_pb"),
    ("a.xml", {"save_inference_graph": True}, "belongs to saved_model and frozen_pb"),
    ("out", {"labels": "folder"}, "labels='folder': needs --images"),
]


@pytest.mark.parametrize(("path", "options", "expected"), WRONG_FOR)
def test_options_of_other_formats(path, options, expected):
    with pytest.raises(DeepLabError) as caught:
        ExportConfig(**options).for_path(path)
    assert expected in str(caught.value)


def test_int8_has_its_ranges_from_one_side():
    rounded = ExportConfig().for_rounded(), ExportConfig(precision="int8").for_rounded()
    assert [options.required_agreement for options in rounded] == [0.99, 0.9]
    assert ExportConfig(min_agreement=1.0).for_rounded().required_agreement == 1.0
    plain, given = ExportConfig(precision="int8"), ExportConfig(precision="int8", representative_images=("x",))
    plain.require_ranges(learned=True), given.require_ranges(learned=False)
    ExportConfig().require_ranges(learned=False)
    with pytest.raises(DeepLabError, match="representative_images=None: --precision=int8 needs them"):
        plain.require_ranges(learned=False)
    with pytest.raises(DeepLabError, match=r"representative_images=\('x',\): quantised training has given"):
        given.require_ranges(learned=True)
    with pytest.raises(DeepLabError, match="file of eight bits, which is that export.*quantize_delay_step=-1"):
        plain.require_ranges(learned=True, as_file=True)


def test_every_field_has_help():
    assert all(field.metadata["help"] for field in dataclasses.fields(ExportConfig))
