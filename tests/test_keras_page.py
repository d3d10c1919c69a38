"""The examples of docs/how-to/keras.md are run."""

import doctest
import pathlib

import keras
import pytest

import deeplab_tf

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "keras.md"


@pytest.mark.heavy
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    keras.utils.set_random_seed(0)
    test = doctest.DocTestParser().get_doctest(PAGE.read_text(encoding="utf-8"), {}, "keras.md", str(PAGE), 0)
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=report.append)
    assert runner.tries > 15
    assert not runner.failures, "".join(report)


def test_the_public_names_of_the_page_exist():
    import re

    named = set(re.findall(r"deeplab_tf\.([A-Za-z_]\w+)", PAGE.read_text(encoding="utf-8")))
    assert named - {"data", "catalog"} <= set(deeplab_tf.__all__)
