"""Every page of the documentation: links lead somewhere, command lines parse, flags and files that are named exist."""

import ast
import dataclasses
import re

import pages
import pytest

from deeplab_tf.catalog import datasets
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.tools import cli
from deeplab_tf.weights.model_directory import ModelCard

NAMES = [str(page.relative_to(pages.ROOT)) for page in pages.PAGES]


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files_and_headings(name):
    page = pages.ROOT / name
    for file, anchor in pages.links(page):
        target = page.parent / file if file else page
        assert target.is_file(), f"{name}: {file}"
        assert not anchor or anchor in pages.anchors(target), f"{name}: {file}#{anchor}"


@pytest.mark.parametrize("name", NAMES)
def test_command_lines_parse(name):
    for command in pages.commands(pages.ROOT / name):
        pages.require_parsed(command)


def test_what_is_parsed_are_the_command_lines():
    found = [command for page in pages.PAGES for command in pages.commands(page)]
    assert {command[0] for command in found} >= set(cli.COMMANDS) - {"published"}
    assert len(found) > 60


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("docs/coming-from/")])
def test_flags_in_the_text_exist(name):
    known = {flag for command in cli.COMMANDS for flag in pages.flags_of(command)} | {"help", "helpfull", "version"}
    text = re.sub(r"(?s)```.*?```", "", pages.text(pages.ROOT / name))
    # What is not the command line's: flags of docker, gcloud and TensorFlow, which the pages name beside ours.
    other = {"tf_xla_persistent_cache_directory", "flink_master", "zone", "server", "target"}
    named = {re.sub(r"^no(?!n)", "", flag) if flag not in known else flag for flag in re.findall(r"`--(\w+)", text)}
    assert named - known - other == set(), name


OTHERS = {f"docs/coming-from/{project}.md" for project in ("keras_cv", "mmsegmentation", "paddleseg")}


@pytest.mark.parametrize("name", sorted(set(NAMES) - OTHERS))
def test_files_in_the_text_exist(name):
    found = re.findall(
        r"`((?:deeplab_tf|tools|configs|checkpoints|tests|docs)/[\w/.]*)`", pages.text(pages.ROOT / name)
    )
    assert {file for file in found if not (pages.ROOT / file).exists()} == set()


def findings() -> set[str]:
    """The codes of the doctor's findings, from its source."""
    found = set()
    for file in (pages.ROOT / "deeplab_tf" / "doctor").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"^[a-z]+(?:-[a-z]+)+$", node.value))
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                found |= {part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)}
            elif isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "_FAULTS":
                assert isinstance(node.value, ast.Dict)
                found |= {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    return found


def test_the_questions_have_every_finding_of_the_doctor():
    table = pages.between(pages.ROOT / "docs" / "faq.md", "findings")
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    told = [code for cell in cells for code in re.findall(r"`(.*?)`", cell)]
    assert len(told) == len(set(told))
    assert set(told) == findings()


def keys(marker: str) -> list[str]:
    """The keys of a table of docs/reference/formats.md."""
    table = pages.between(pages.ROOT / "docs" / "reference" / "formats.md", marker)
    return [key for line in table.splitlines()[2:] for key in re.findall(r"`(\w+)`", line.split("|")[1])]


def test_the_formats_have_every_key():
    model = [field.name for field in dataclasses.fields(ModelCard)]
    assert sorted(keys("model")) == sorted([*model, "version"])
    assert sorted(keys("dataset")) == sorted(datasets._KEY_TYPES)
    assert sorted(keys("image")) == sorted(field.name for field in dataclasses.fields(ImageFacts))
