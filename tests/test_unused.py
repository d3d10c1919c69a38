"""What nobody uses goes: every public name is used by the library or the commands, and every option is read."""

import ast
import collections
import dataclasses
import importlib
import pathlib

import pytest
from conftest import ROOT

import deeplab_tf

FILES = [path for folder in ("deeplab_tf", "tools", "configs") for path in sorted((ROOT / folder).rglob("*.py"))]
TREES = {path: ast.parse(path.read_text()) for path in FILES}
# tensorflow-datasets registers the builders of data sets by their names.
CALLED_BY_NAME = {"DeeplabVoc", "DeeplabCityscapes", "DeeplabAde20k", "DeeplabShapes"}
# Of the public modules deeplab_tf.crf and deeplab_tf.evaluation.panoptic.
PUBLIC_IN_MODULES = {"crf_search", "SEARCH_V1", "write_panoptic"}


def uses() -> collections.Counter[str]:
    """Counts the names that are read, as a variable or an attribute, or are imported under another name."""
    found = collections.Counter()
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                found[node.id] += 1
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found[node.attr] += 1
            elif isinstance(node, ast.ImportFrom):
                found.update(alias.name for alias in node.names if alias.asname and alias.asname != alias.name)
    return found


USES = uses()


def defined(tree: ast.Module) -> list[str]:
    """Returns the public functions, classes and constants of a module."""
    names = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return [name for name in names if not name.startswith("_")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_name_is_used(path: pathlib.Path):
    known = {*USES, *deeplab_tf.__all__, *CALLED_BY_NAME, *PUBLIC_IN_MODULES}
    assert [name for name in defined(TREES[path]) if name not in known] == []


def test_every_option_is_read():
    # The CRF's numbers are read by name.
    named = {node.value for path, tree in TREES.items() if path.is_relative_to(ROOT / "deeplab_tf")
             for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip
    unread = []
    for path in sorted((ROOT / "deeplab_tf" / "config").glob("*.py")):
        module = importlib.import_module(f"deeplab_tf.config.{path.stem}".removesuffix(".__init__"))
        for value in vars(module).values():
            if dataclasses.is_dataclass(value) and value.__module__ == module.__name__:
                fields = dataclasses.fields(value)
                unread += [f"{value.__name__}.{field.name}" for field in fields if field.name not in {*USES, *named}]
    assert unread == []
