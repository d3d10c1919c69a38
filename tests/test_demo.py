"""The embedded network and the demonstration of the whole way."""

import re

import numpy as np
import pages
import PIL.Image
import pytest
from commands import finished

from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.inference.predict import predict
from deeplab_tf.ops.metrics import confusion_matrix, iou_per_class, mean_iou
from deeplab_tf.tools import demo, voc_smoke
from deeplab_tf.weights.loading import open_model
from deeplab_tf.zoo import lookup
from deeplab_tf.zoo.released import SHAPES

LARGEST = 2.5e6  # bytes


@pytest.fixture(scope="module")
def loaded():
    return open_model("shapes_resnet")


def test_the_embedded_checkpoint_is_small_and_of_the_releases_kind():
    files = {path.name: path.stat().st_size for path in lookup.embedded_folder(SHAPES).iterdir()}
    assert {"model.ckpt.index", "model.ckpt.data-00000-of-00001"} <= set(files)
    assert sum(files.values()) <= LARGEST


def test_it_is_what_the_table_says(loaded):
    assert loaded.card.config == SHAPES.config
    assert loaded.card.dataset == "shapes" and loaded.card.class_names[0] == "background"
    assert set(loaded.receipt.skipped) == {"global_step"} and int(loaded.state["global_step"]) > 0


def test_it_scores_what_is_published_with_it(loaded):
    """On a tenth of the held-out part; the recorded figure is over all of it."""
    examples = [shapes_example(0, FIRST_INDEX["val"] + index) for index in range(50)]
    images, labels = (np.stack(arrays) for arrays in zip(*examples, strict=True))
    matrix = confusion_matrix(labels, predict(loaded.model, images), 9)
    assert np.all(matrix.sum(1) > 0), "every class is there"
    assert 100 * mean_iou(matrix) > SHAPES.scores[0].value - 5
    assert iou_per_class(matrix).min() > 0.5


@pytest.mark.heavy
def test_demo(tmp_path, capsys):
    assert finished(demo, f"--output_dir={tmp_path / 'demo'}", "--held_out=20") == 0
    printed = capsys.readouterr().out
    assert float(re.search(r"mean IoU (\d\.\d+)", printed)[1]) > 0.7
    sheet = np.array(PIL.Image.open(tmp_path / "demo" / "sheet.png"))
    assert sheet.shape[0] > 1000 and sheet.shape[1] > 900 and sheet.std() > 20
    names = {str(p.relative_to(tmp_path / "demo")) for p in (tmp_path / "demo").rglob("*") if p.is_file()}
    assert {"model/deeplab.json", "model/receipt.json", "predictions/shapes_00_raw.png"} <= names
    assert finished(demo, f"--output_dir={tmp_path / 'demo'}", "--held_out=5") == 0
    assert "there already" in capsys.readouterr().out


def test_demo_refuses_nonsense(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert finished(demo, "--held_out=0") == 1
    assert "--held_out=0" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


# ---- local_test.sh and local_test_mobilenetv2.sh


@pytest.mark.parametrize("what", voc_smoke.NETWORKS)
def test_the_smokes_lines_are_those_of_the_releases_scripts(what):
    """Each command takes them, and they say what the scripts say."""
    for command, line in voc_smoke.command_lines(what, "root"):
        values = pages.flags_of(command)
        assert values(["deeplab-tf", *line]) == ["deeplab-tf"]
        if command in ("train", "eval", "vis"):
            assert values.output_stride == 16
        if command == "train":
            assert (values.train_split, values.train_batch_size, values.training_number_of_steps) == ("trainval", 4, 10)
            assert values.fine_tune_batch_norm
    rates = ["6", "12", "18"] if what == "voc_smoke" else None
    assert (values.atrous_rates, values.num_classes, values.output_stride) == (rates, 21, 16 if rates else None)


@pytest.mark.heavy
def test_the_smoke_of_mobilenet(tmp_path, capsys):
    """Every command ends well, and leaves what the release's script leaves."""
    assert finished(demo, "--what=voc_smoke_mobilenetv2", f"--output_dir={tmp_path}") == 0
    printed = capsys.readouterr().out
    assert [line.split()[2] for line in printed.splitlines() if line.startswith("$ deeplab-tf ")] == [
        *("build-data", "train", "eval", "vis", "export")
    ]
    run = tmp_path / "voc_smoke_mobilenetv2" / "exp" / "train_on_trainval_set"
    assert (run / "train" / "model.ckpt-10.index").is_file() and (run / "eval" / "metrics.jsonl").is_file()
    assert len(list((run / "vis" / "segmentation_results").glob("*_prediction.png"))) == 3
    assert (run / "export" / "frozen_inference_graph.pb").is_file()
    assert finished(demo, "--what=voc_smoke_mobilenetv2", f"--output_dir={tmp_path}") == 1
    assert "is there already" in capsys.readouterr().err


def test_a_smoke_ends_where_a_command_fails(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(voc_smoke, "_run", lambda name, given: seen.append(name) or (name == "train") * 3)
    monkeypatch.setattr(voc_smoke, "NETWORKS", {"voc_smoke": (("--model_variant=tiny",), ("--model_variant=tiny",))})
    assert voc_smoke.smoke("voc_smoke", tmp_path) == 3
    assert seen == ["build-data", "train"] and "ended with status 3" in capsys.readouterr().out
