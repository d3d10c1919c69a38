"""Segmenting as a Beam pipeline: the files that predict writes here, the same faults, nothing half-done."""

import sys

import PIL.Image
import pytest
from commands import everything, finished
from golden import golden_image
from networks import TINY, lively

from deeplab_tf.config import PredictConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import predict as predict_tool
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt

pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A model directory of the small network."""
    folder = tmp_path_factory.mktemp("small") / "model"
    names = ("ground", "sky", "tree", "house", "lake", "road")
    card = ModelCard(config=TINY, class_names=names)
    save_model(folder, lively(TINY), Receipt("tests", "0" * 64, {}, {}), card=card)
    return folder


@pytest.fixture
def photos(tmp_path):
    """Pictures in two folders that share a name, and a bad one."""
    for number in range(5):
        path = tmp_path / "photos" / ("a", "b")[number % 2] / f"{number // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(golden_image(str(number), 40 + number, 50)).save(path)
    (tmp_path / "photos/a/bad.jpg").write_text("no picture")
    return tmp_path / "photos"


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".png"}


@pytest.mark.heavy
def test_the_direct_runner_writes_the_same_files(directory, photos, tmp_path, capsys):
    from deeplab_tf.inference.beam import read_results

    flags = [f"--checkpoint={directory}", f"--input={photos}/*/*", "--save=raw,mask", "--runtime=tf", "--resize=none"]
    assert finished(predict_tool, *flags, f"--output_dir={tmp_path / 'here'}") == 1
    capsys.readouterr()
    beam = tmp_path / "beam"
    assert finished(predict_tool, *flags, f"--output_dir={beam}", "--beam_runner=DirectRunner") == 1
    found = capsys.readouterr()
    assert "6 images; sizes, classes and errors: " in found.out
    assert "1 images failed, for instance:" in found.err and "bad.jpg: not an image" in found.err
    assert contents(beam) == contents(tmp_path / "here") and len(contents(beam)) == 10
    assert {name for name in everything(beam) if not name.endswith(".png")} == {
        name for name in everything(beam) if name.startswith("results-")
    }
    results = {result["name"]: result for result in read_results(str(beam))}
    assert len(results) == 6 and "not an image" in results.pop(str(photos / "a/bad.jpg"))["error"]
    for name, result in results.items():
        assert result["size"] == list(PIL.Image.open(name).size[::-1])
        assert sum(share for _, _, share in result["shares"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--beam_runner=Direct"], "unknown beam_runner 'Direct'; did you mean DirectRunner"),
        (["--beam_runner=DirectRunner", "--beam_options=x"], "--beam_options: 'x'; expected --name=value"),
        (["--beam_options=--x=1"], "--beam_options belongs to --beam_runner"),
        (["--beam_runner=DirectRunner", "--input=-"], "cannot read standard input"),
        (["--beam_runner=FlinkRunner", "--output_dir=ram://out"], "ram://out is in the memory of this process"),
    ],
)
def test_mistakes_are_told(flags, reason, directory, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [] if any(flag.startswith("--input") for flag in flags) else [f"--input={photos}/*/*"]
    assert finished(predict_tool, f"--checkpoint={directory}", *given, *flags) == 1
    message = capsys.readouterr().err
    assert reason in message and message.count("\n") == 1


def test_without_input(directory, capsys):
    assert finished(predict_tool, f"--checkpoint={directory}", "--beam_runner=DirectRunner") == 1
    assert "--input is missing" in capsys.readouterr().err


def test_without_beam(directory, photos, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert finished(predict_tool, f"--checkpoint={directory}", photos, "--beam_runner=DirectRunner") == 1
    assert "pip install 'deeplab_tf[beam]'" in capsys.readouterr().err


@pytest.mark.heavy
def test_a_pipeline_that_fails(directory, photos, tmp_path, monkeypatch):
    from deeplab_tf.inference import beam

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["deeplab_tf.inference.files"], "palette_png", full)
    job = beam.Job(str(directory), {}, PredictConfig(save=("raw",)), str(tmp_path / "out"))
    with pytest.raises(DeepLabError, match=r"--beam_runner=DirectRunner: .*No space left"):
        beam.predict_with_beam([str(photos / "a/0.png")], job, "DirectRunner")
    assert everything(tmp_path / "out") == set()
