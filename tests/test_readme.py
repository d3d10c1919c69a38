"""What the README says is so: its commands are CI's, its table is the zoo's, its links and pictures exist."""

import pathlib
import re

from deeplab_tf.tools import cli
from deeplab_tf.zoo import lookup

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def between(marker: str) -> str:
    return re.search(rf"<!-- {marker} -->\n(.*)<!-- /{marker} -->", README, re.DOTALL)[1].strip()


def test_the_zoo_table_is_printed_from_the_table():
    assert between("zoo") == lookup.zoo_markdown().strip()


def test_ci_runs_the_readmes_commands():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = re.findall(r'^(?:DEMO|TEST|CHECK)="(.*)"$', script, re.MULTILINE)
    assert len(commands) == 3
    lines = README.splitlines()
    assert all(command in lines for command in commands)


def test_commands_exist():
    named = set(re.findall(r"deeplab-tf ([a-z-]+)", README))
    assert named <= set(cli.COMMANDS)


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert "docs/demo_sheet.png" in targets
    assert all((ROOT / target).is_file() for target in targets if "://" not in target)


def test_the_measured_figures_are_there():
    assert "Xception-65" in between("benchmark")
