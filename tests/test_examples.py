"""The examples in docstrings are run: what `help(deeplab_tf.load)` shows is what happens."""

import doctest
import importlib
import pathlib

import keras
import pytest

import deeplab_tf

ROOT = pathlib.Path(__file__).parents[1]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules_with_examples() -> list[str]:
    """Returns the dotted names of the library's modules that hold an example."""
    sources = sorted((ROOT / "deeplab_tf").rglob("*.py"))
    found = [path.relative_to(ROOT).with_suffix("") for path in sources if ">>> " in path.read_text(encoding="utf-8")]
    return [".".join(path.parts).removesuffix(".__init__") for path in found]


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)  # a tie of two classes among random weights is no fault of an export
    module = importlib.import_module(name)
    report = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs={"deeplab_tf": deeplab_tf}):
        runner.run(test, out=report.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(report)
