"""The embedded network and the demonstration of the whole way."""

import re

import numpy as np
import PIL.Image
import pytest
from commands import finished

from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.inference.predict import predict
from deeplab_tf.ops.metrics import confusion_matrix, iou_per_class, mean_iou
from deeplab_tf.tools import demo
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
