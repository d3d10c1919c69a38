"""The benchmark of the scores: it reports what it names, on maps that are like those of PASCAL VOC."""

import json

import numpy as np
from commands import finished

from deeplab_tf.benchmarks import metrics
from deeplab_tf.tools import benchmark


def test_it_is_reported(capsys, tmp_path):
    file = tmp_path / "figures.json"
    assert finished(benchmark, "--what=metrics", "--small", "--rounds=2", f"--json={file}") == 0
    figures = json.loads(file.read_text())["figures"]
    assert [len(values) for values in figures.values()] == [2, 2, 1, 1]
    assert min(value for values in figures.values() for value in values) >= 0
    printed = capsys.readouterr().out
    assert all(f"\n| {name} | " in printed for name in figures)


def test_maps_have_all_classes_void_between_and_mistakes():
    label, prediction = metrics._maps((375, 500), 0)
    assert set(np.unique(label)) == {*range(21), 255} and set(np.unique(prediction)) == set(range(21))
    assert 0.02 < np.mean(label == 255) < 0.1 and 0.001 < np.mean((label != prediction) & (label != 255)) < 0.1
