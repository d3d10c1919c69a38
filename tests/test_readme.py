"""What the README says is so: it is short, its commands are CI's, its figures are held by what it names."""

import re

import pages

from deeplab_tf.zoo import lookup
from deeplab_tf.zoo.released import SHAPES

README = pages.text(pages.ROOT / "README.md")


def reference(name: str, marker: str) -> str:
    return pages.between(pages.ROOT / "docs" / "reference" / f"{name}.md", marker).strip()


def test_it_is_short_and_has_one_picture():
    assert len(README.splitlines()) <= 200
    assert re.findall(r"!\[[^]]{20,}\]\((.*?)\)", README) == ["docs/images/shapes.png"]
    assert max(map(len, README.splitlines())) <= 160


def test_the_zoo_table_is_printed_from_the_table():
    assert reference("zoo", "zoo") == lookup.zoo_markdown().strip()


def test_ci_runs_the_readmes_commands():
    script = (pages.ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = re.findall(r'^(?:DEMO|TEST|CHECK)="(.*)"$', script, re.MULTILINE)
    assert len(commands) == 3
    lines = README.splitlines()
    assert all(command in lines for command in commands)


def test_the_measured_figures_are_there():
    assert "Xception-65" in reference("benchmarks", "benchmark")


def test_what_is_proven_is_what_is_recorded():
    proven = README.partition("## What is proven\n")[2].partition("\n## ")[0]
    recorded = len(list((pages.ROOT / "tests" / "goldens" / "models").glob("*.npz")))
    photographs = len(list((pages.ROOT / "tests" / "goldens" / "real").glob("*.png")))
    runs = len(list((pages.ROOT / "tests" / "goldens" / "train").glob("*.json")))
    assert (recorded, photographs, runs) == (23, 12, 5)
    assert f"{recorded} recorded configurations" in proven and f"{photographs} recorded ones" in proven
    assert "on five recorded runs" in proven
    assert f"mIoU {SHAPES.scores[0].value / 100:.4f} on 500" in proven
    camvid = pages.text(pages.ROOT / "docs" / "tutorials" / "camvid.md")
    assert all(score in proven and score in camvid for score in ("0.614", "0.624", "0.695"))
    export = pages.text(pages.ROOT / "docs" / "how-to" / "export.md")
    assert "int8 98.98 %" in proven and "| TFLite int8 | 98.98 % |" in export
