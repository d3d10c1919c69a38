"""JSON of our own: what is damaged, too deep, too large or of another type is one line that names the file."""

import json

import pytest

from deeplab_tf import files
from deeplab_tf.arch import dense_prediction_cell
from deeplab_tf.catalog.datasets import read_dataset
from deeplab_tf.config import ModelConfig
from deeplab_tf.doctor.exports import check_exports
from deeplab_tf.documents import json_files
from deeplab_tf.documents.json_files import JSONError, parse_json, typed
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.run_directory import METRICS, SCORES, RunDirectory
from deeplab_tf.weights.run_options import read_run

BROKEN = {
    "empty": b"",
    "cut": b'{"version": "1',
    "list": b"[]",
    "null": b"null",
    "word": b'"text"',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "zeros": bytes(200),
    "deep": b"[" * 100_000,
    "deep and whole": b"[" * 90 + b"]" * 90,
    "deep objects": b'{"a":' * 900 + b"1" + b"}" * 900,
    "long number": b'{"a": ' + b"9" * 5000 + b"}",
}
CARD = ModelCard(ModelConfig(), class_names=("a", "b")).to_json()
WRONG_CARDS = {
    "class_names": [1, 2],
    "palette": [["red", 0, 0]],
    "ignore_label": "255",
    "dataset": 3,
    "source_checkpoint": ["x"],
    "output_stride": "16",
    "averages": "yes",
    "letterbox": True,
    "kind": "something",
    "config": [],
    "surprise": 1,
}
WRONG_OPTIONS = {
    "num_classes": "21",
    "output_stride": 16.5,
    "crop_size": [513],
    "atrous_rates": "6,12,18",
    "depth_multiplier": True,
    "model_variant": 7,
    "decoder_filters": 1 << 40,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_every_reader_of_our_json_names_the_file(content, tmp_path):
    readers = {
        "deeplab.json": lambda: ModelCard.read(tmp_path),
        "run.json": lambda: read_run(files.path(tmp_path)),
        "dataset.json": lambda: read_dataset(tmp_path),
        "cell.json": lambda: dense_prediction_cell.parse(str(tmp_path / "cell.json")),
    }
    for name, read in readers.items():
        (tmp_path / name).write_bytes(content)
        if (name, content) == ("cell.json", b"[]"):
            continue
        with pytest.raises(DeepLabError) as caught:
            read()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
        assert name in str(caught.value) or "dense_prediction_cell_json" in str(caught.value)
    (tmp_path / "x.tflite").write_bytes(b"x")
    (tmp_path / "x.tflite.certificate.json").write_bytes(content)
    assert "unreadable-certificate" in {finding.code for finding in check_exports(tmp_path).findings}
    for log in (METRICS, SCORES):
        (tmp_path / log).write_bytes(content + b'\n{"step": 3, "miou": 0.5}\n{"step": true, "miou": 1}\n{"step": 4')
        assert RunDirectory(tmp_path).lines(log) == [{"step": 3, "miou": 0.5}]


@pytest.mark.parametrize("name", WRONG_CARDS)
def test_a_card_of_other_types(name, tmp_path):
    (tmp_path / "deeplab.json").write_text(json.dumps({**CARD, name: WRONG_CARDS[name]}))
    with pytest.raises(DeepLabError, match=r"deeplab\.json: .*(Expected|Invalid|unknown field|expected)"):
        ModelCard.read(tmp_path)


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_a_network_of_other_types(name, tmp_path):
    (tmp_path / "deeplab.json").write_text(json.dumps({**CARD, "config": {name: WRONG_OPTIONS[name]}}))
    with pytest.raises(DeepLabError, match=name):
        ModelCard.read(tmp_path)


def test_a_run_of_other_types(tmp_path):
    for values in ({"places": []}, {"changes": {}}, {"records": {"splits": {"train": {"records": "5", "digest": ""}}}}):
        (tmp_path / "run.json").write_text(json.dumps(values))
        with pytest.raises(DeepLabError, match=r"run\.json: damaged \(Expected"):
            read_run(files.path(tmp_path))


def test_scores_need_their_number(tmp_path):
    (tmp_path / SCORES).write_text('{"step": 3}\n{"step": 4, "miou": "high"}\n{"step": 5, "miou": NaN}\n')
    assert [line["step"] for line in RunDirectory(tmp_path).lines(SCORES)] == [5]


def test_what_is_right_is_read(monkeypatch):
    assert parse_json(b'\xef\xbb\xbf{"a": [1, 2.5]}', dict[str, list[float]]) == {"a": [1.0, 2.5]}
    assert typed([1, 2], tuple[int, int]) == (1, 2)
    with pytest.raises(JSONError, match=r"Expected `int`, got `str` - at `\$\[1\]`"):
        typed([1, "2"], tuple[int, int])
    monkeypatch.setattr(json_files, "MOST_BYTES", 10)
    with pytest.raises(JSONError, match="has 11 bytes; expected at most 10"):
        parse_json(b'"' + b"x" * 9 + b'"', str)
