"""The doctor's look at exports: one of a tiny network, and what may become of it or of its weights."""

import hashlib
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
from commands import finished
from test_doctor_checkpoint import TINY, saved

from deeplab_tf.config import ExportConfig
from deeplab_tf.doctor.exports import check_exports, is_export
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.export import export
from deeplab_tf.network.build import build_model
from deeplab_tf.tools import doctor
from deeplab_tf.weights.tf1 import variable_map


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    keras.utils.set_random_seed(1)
    found = {name: variable.numpy() for name, variable in variable_map(build_model(TINY)).items()}
    return {**found, "logits/semantic/biases": np.linspace(-0.1, 0.1, 9, dtype=np.float32)}


@pytest.fixture(scope="module")
def made(tmp_path_factory, weights) -> pathlib.Path:
    """A folder with a model directory and an export of it."""
    folder = tmp_path_factory.mktemp("made")
    path = saved(folder, weights, train_split="train", output_stride=16, source_checkpoint="where/training/began")
    export(path, folder / "out", ExportConfig(num_images=1))
    return folder


@pytest.fixture
def folder(made, tmp_path) -> pathlib.Path:
    """A copy of it, where the certificate names the copy of the weights."""
    shutil.copytree(made, tmp_path / "copy")
    change(tmp_path / "copy", checkpoint=str(tmp_path / "copy" / "model"))
    return tmp_path / "copy"


def change(folder: pathlib.Path, **values):
    file = folder / "out" / "certificate.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.heavy
def test_the_certificate_names_the_weights_that_were_exported(made):
    found = json.loads((made / "out" / "certificate.json").read_text())
    assert found["checkpoint"] == str(made / "model") and len(found["checkpoint_sha256"]) == 64
    assert found["source_checkpoint"] == "where/training/began"


def test_a_sound_one(folder):
    found = check_exports(folder / "out")
    assert found.codes == ()
    notes = {finding.code: finding.evidence for finding in found.findings}
    assert notes["what-it-is"][0].startswith(
        "out: saved_model, tiny for 9 classes of shapes, images any x any x any x 3, "
    )
    assert notes["agreement"][0].endswith("% of the pixels of 1 pictures")
    assert set(notes) == {"what-it-is", "agreement"} and found.facts["out"]["agreement"] > 0.999


def flip_a_bit(file: pathlib.Path):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


CHANGES = {
    "another output stride": (
        "export-stride",
        "warning",
        lambda f: change(f, output_stride={"exported": 8, "from": "--output_stride", "trained": 16}),
    ),
    "bytes": ("artefact-changed", "error", lambda f: flip_a_bit(f / "out" / "saved_model.pb")),
    "gone": (
        "artefact-changed",
        "error",
        lambda f: change(f, options={"format": "tflite"}),  # such a folder would hold model.tflite
    ),
    "agreement": ("low-agreement", "warning", lambda f: change(f, agreement=0.99)),
    "mean IoU": ("low-agreement", "warning", lambda f: change(f, miou={"keras": 0.5, "exported": 0.48})),
    "fields": ("unreadable-certificate", "error", lambda f: change(f, options=3)),
    "no JSON": ("unreadable-certificate", "error", lambda f: (f / "out" / "certificate.json").write_text("{")),
    "no certificate": ("uncertified", "warning", lambda f: (f / "out" / "certificate.json").unlink()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_may_become_of_it(folder, name):
    code, severity, deed = CHANGES[name]
    deed(folder)
    found = check_exports(folder / "out")
    assert found.codes == (code,) and found.findings[0].severity == severity and found.findings[0].cure


def test_weights_that_were_trained_on(folder, tmp_path, weights):
    (tmp_path / "later").mkdir()
    later = {**weights, "logits/semantic/biases": weights["logits/semantic/biases"] + 1}
    path = saved(tmp_path / "later", later)
    assert check_exports(folder / "out", checkpoint=path).codes == ("stale-export",)
    shutil.rmtree(folder / "model")
    unknown = check_exports(folder / "out")
    assert unknown.codes == () and "weights-unknown" in [finding.code for finding in unknown.findings]
    shutil.copytree(path, folder / "model")
    found = check_exports(folder / "out").findings[0]
    assert found.code == "stale-export" and f"--checkpoint_path={folder / 'model'}" in found.cure


def test_a_stride_that_nobody_knows(folder):
    change(folder, output_stride={"exported": 8, "from": "the release's default for export", "trained": None})
    found = check_exports(folder / "out")
    assert found.codes == () and "nothing says which was trained" in str(found.findings)


def test_files_beside_each_other(folder, tmp_path):
    certificate = json.loads((folder / "out" / "certificate.json").read_text())
    place = tmp_path / "files"
    place.mkdir()
    (place / "a.tflite").write_bytes(b"12345")
    (place / "b.onnx").write_bytes(b"1")
    values = {**certificate, "options": {"format": "tflite", "precision": "int8"}, "agreement": 0.95}
    values["sha256"] = hashlib.sha256(b"12345").hexdigest()
    (place / "a.tflite.certificate.json").write_text(json.dumps(values))
    found = check_exports(place)
    assert found.codes == ("uncertified",) and found.findings[0].evidence[0].startswith("b.onnx: no certificate")
    alone = check_exports(place / "a.tflite")
    assert alone.codes == () and alone.findings[0].evidence[0].startswith("a.tflite: tflite int8, tiny for 9 classes")
    with pytest.raises(DeepLabError, match="nothing is there"):
        check_exports(place / "c.onnx")


def test_the_command(folder, capsys):
    assert is_export(folder / "out") and not is_export(folder / "model")
    assert finished(doctor, f"--checkpoint={folder / 'out'}") == 0
    assert "NOTE    agreement: out: the model's class in " in capsys.readouterr().out
    assert finished(doctor, f"--checkpoint={folder / 'model'}", f"--export_dir={folder / 'out'}") == 0
    assert capsys.readouterr().out.count("what-it-is") == 2
    flip_a_bit(folder / "out" / "saved_model.pb")
    assert finished(doctor, f"--export_dir={folder / 'out'}") == 1
