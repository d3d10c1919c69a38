"""The learning curves of a report: of the run that its weights lie in, and of nothing else."""

import json
import re

import pytest

from deeplab_tf.evaluation.report.charts import amount_chart
from deeplab_tf.evaluation.report.learning import learning_charts, read_learning


@pytest.fixture
def run(tmp_path):
    (tmp_path / "model.ckpt-500.index").write_bytes(b"")
    lines = [{"step": step, "total_loss": 3 - step / 250} for step in range(0, 501, 5)]
    lines[3]["total_loss"], lines[4]["total_loss"] = None, float("nan")
    text = "".join(f"{json.dumps(line)}\n" for line in ({"step": 0, "event": "started"}, *lines))
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 505, "total_l')
    scores = "".join(f"{json.dumps({'step': step, 'miou': step / 1000})}\n" for step in (100, 300, 500))
    (tmp_path / "scores.jsonl").write_text(scores)
    return tmp_path


def test_the_curves_are_those_of_the_log(run):
    found = read_learning(str(run / "model.ckpt-500"))
    assert found.losses[:3] == [(0, 3.0), (5, 2.98), (10, 2.96)] and len(found.losses) == 99
    assert found.scores == [(100, 0.1), (300, 0.3), (500, 0.5)]
    html = learning_charts(found)
    assert "Loss while learning" in html and "Score while learning" in html
    loss, score = re.findall(r'class="curve c0" points="([^"]*)"', html)[:2]
    assert len(loss.split()) == 60 and len(score.split()) == 3
    heights = [float(point.split(",")[1]) for point in loss.split()]
    assert heights == sorted(heights), "a falling loss falls"


def test_without_a_run_there_are_no_curves(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run)
    assert read_learning("shapes_resnet") is None, "the log in the working directory is another's"
    (run / "metrics.jsonl").unlink()
    (run / "scores.jsonl").unlink()
    assert read_learning(str(run / "model.ckpt-500")) is None and learning_charts(None) == ""


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-9, 1e9], [5.0]])
def test_odd_amounts(values):
    chart = amount_chart("x", range(len(values)), values)
    assert "nan" not in chart and chart.count("<polyline") == 1
