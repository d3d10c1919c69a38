"""The notebooks run as they stand, in an empty folder and without a network, and what they store is fit to be shown."""

import configparser
import json
import os
import re
import shlex
import sys

import nbformat
import pages
import pytest

from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.ops.images import write_png

sys.path.insert(0, str(pages.ROOT / "docs" / "hooks"))
import notebook_pages

NOTEBOOKS = notebook_pages.notebooks()
NAMES = sorted(NOTEBOOKS)


def cells(notebook, kind="code"):
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def text_of(notebook) -> str:
    """What the cells of a notebook have printed and given, as text."""
    outputs = [output for cell in cells(notebook) for output in cell.outputs]
    return "\n".join(notebook_pages.shown(o.text) if "text" in o else o.data.get("text/plain", "") for o in outputs)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a notebook in an empty folder, with a small network and drawn pictures in place of downloads."""
    monkeypatch.setenv("PYTHONPATH", str(pages.ROOT))
    command = tmp_path / "bin" / "deeplab-tf"  # as an installed package has it
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\nfrom deeplab_tf.tools.cli import main\n\nif __name__ == '__main__':\n    main()\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    picture = tmp_path / "picture.png"
    write_png(shapes_example(0, FIRST_INDEX["test"], height=129, width=161)[0], picture)
    monkeypatch.setenv("NOTEBOOK_MODEL", "shapes_resnet")
    monkeypatch.setenv("NOTEBOOK_PICTURE", str(picture))
    monkeypatch.setenv("NOTEBOOK_INITIAL", "shapes_resnet")
    monkeypatch.setenv("NOTEBOOK_STEPS", "24")
    here = tmp_path / "here"
    here.mkdir()

    def ran(name: str):
        notebook = notebook_pages.executed(NOTEBOOKS[name], here)
        outputs = [output for cell in cells(notebook) for output in cell.outputs]
        assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
        logged = "\n".join(output.text for output in outputs if output.get("name") == "stderr").splitlines()
        assert not [line for line in logged if not re.match(r"WARNING: All log|[IWE]\d{4} |$", line)]
        return text_of(notebook), sum("image/png" in output.get("data", {}) for output in outputs)

    ran.here = here
    return ran


@pytest.mark.heavy
def test_a_photograph(run):
    text, pictures = run("photograph")
    assert pictures == 3
    assert re.search(r"^SegmentedImage\(129 x 161: background \d\d", text, re.MULTILINE)
    assert "(129, 161) int32" in text and "(129, 161, 9) 1.0" in text
    written = {path.name for path in (run.here / "out").iterdir()}
    assert written == {f"photograph_{end}" for end in ("mask.png", "overlay.jpg", "raw.png", "coco.json")}


@pytest.mark.heavy
def test_own_data(run):
    text, pictures = run("own_data")
    assert pictures == 2 and "Done: step 24" in text
    scores = json.loads((run.here / "my_run" / "scores.jsonl").read_text().splitlines()[-1])
    assert scores["miou"] > 0.6, "the two classes are told apart"
    assert json.loads((run.here / "my_run" / "deeplab.json").read_text())["class_names"][1:] == ["round", "angular"]


@pytest.mark.heavy
def test_the_keras_api(run):
    text, pictures = run("keras")
    assert pictures == 1 and "['background', 'round', 'angular'] True" in text.replace("(", "[").replace(")", "]")
    assert float(re.findall(r"val_mean_iou: ([\d.]+)", text)[-1]) > 0.5
    assert float(re.search(r"([\d.]+)% of the pixels", text)[1]) > 90


# ---- as they are stored


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_the_line_that_installs(name):
    first, *others = cells(nbformat.read(NOTEBOOKS[name], as_version=4))
    setup = configparser.ConfigParser()
    setup.read(pages.ROOT / "setup.cfg", encoding="utf-8")
    found = re.fullmatch(r"%pip install --quiet '?(\w+)(?:\[([\w,]+)\])?'?(?: [\w-]+)*", first.source)
    assert found and found[1] == setup["metadata"]["name"]
    assert {*filter(None, (found[2] or "").split(","))} <= {*setup["options.extras_require"]}
    assert first.metadata.tags == [notebook_pages.NOT_RUN]
    assert not [cell for cell in others if cell.metadata.get("tags")]


@pytest.mark.parametrize("name", NAMES)
def test_what_it_stores_is_of_a_whole_run_and_fit_to_be_shown(name):
    path = NOTEBOOKS[name]
    notebook = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in cells(notebook)[1:]] == list(range(1, len(cells(notebook))))
    assert path.stat().st_size < 500_000
    text = text_of(notebook)
    assert not re.search(r"/tmp|/home|/root|/work|/Users|Traceback", text)
    assert max(map(len, text.splitlines())) < 200 and not re.search("[\x1b\r]", text)
    for cell in cells(notebook):
        shows = any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {}))
        assert ("alt" in cell.metadata) == shows
    page, pictures = notebook_pages.page(path)
    assert page.startswith("# ") and len(re.findall(r"!\[[^]]{20,}\]\(", page)) == len(pictures) > 0


@pytest.mark.parametrize("name", NAMES)
def test_links_and_command_lines(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(cell.source for cell in cells(notebook, "markdown"))):
        assert "://" in target or (NOTEBOOKS[name].parent / target).is_file(), target
    prose = "\n".join(cell.source for cell in cells(notebook, "markdown"))
    typed = [line.replace("\n", " ") for line in re.findall(r"`(deeplab-tf [^`]*)`", prose)]
    source = "\n".join(cell.source for cell in cells(notebook)).replace("\\\n", " ")
    typed += re.findall(r"^!(deeplab-tf .*)$", source, re.MULTILINE)
    assert typed
    for line in typed:
        words = shlex.split(re.sub(r" \{\w+\}", "", line).replace("{", "").replace("}", ""))
        pages.require_parsed(words[1:])
