"""Whatever holds a path besides the flags: fields of configurations in Python, environment variables, and files."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

import deeplab_tf.config
from deeplab_tf.config.fields import Options
from deeplab_tf.data.find import find_dataset
from deeplab_tf.errors import DeepLabError
from deeplab_tf.zoo import download

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = [file for folder in ("deeplab_tf", "tools") for file in sorted((ROOT / folder).rglob("*.py"))]
CONFIGS = [kind for kind in vars(deeplab_tf.config).values() if isinstance(kind, type) and issubclass(kind, Options)]
FIELDS = {
    field.name
    for kind in CONFIGS
    for field in vars(kind).get("__dataclass_fields__", {}).values()
    if field.metadata.get("path")
}
# What takes a path as it is, without a home folder and without file systems such as gs://.
BARE = {"open", "Path", "PurePath", "glob", "iglob", "listdir", "makedirs", "mkdir", "scandir", "stat", "remove"}
BARE |= {"exists", "isfile", "isdir", "getsize", "abspath", "realpath", "rename", "replace", "unlink", "copyfile"}
MODULES = {"os", "path", "pathlib", "glob", "shutil", "io", "gfile"}
# Environment variables that are read, and what each holds if it is no path.
NOT_PATHS = {
    "TF_CONFIG": "JSON",
    "TF_CPP_MIN_LOG_LEVEL": "a number",
    "HF_ENDPOINT": "the address of a server",
    "KERAS_BACKEND": "a word",
    "KERAS_HOME": "Keras's own folder, which Keras reads as a folder of this machine and so does registration",
    "WANDB_NAME": "the name of a run",
    "VARIABLE": "flags of XLA",
    "_CATCH_ERRORS": "a word, of tf2onnx",
}
PATHS = {"CACHE_VARIABLE", "TFDS_DATA_DIR"}


def calls(file: pathlib.Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def is_bare(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in ("open", "Path", "PurePath")
    if not isinstance(function, ast.Attribute) or function.attr not in BARE:
        return False
    owner = function.value
    return (owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")) in MODULES


def test_the_paths_of_configurations_are_found():
    assert {"train_logdir", "dataset_dir", "decoded_cache", "checkpoint_dir", "predictions", "output"} <= FIELDS


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_path_of_a_configuration_is_opened_past_files(file):
    for call in calls(file):
        if is_bare(call.func) and call.args:
            given = call.args[0]
            named = given.attr if isinstance(given, ast.Attribute) else None
            assert named not in FIELDS, f"{file}:{call.lineno}: {named} goes through files.path"


def test_every_environment_variable_is_known():
    found = set()
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "os.getenv"):
                found.add(ast.unparse(node.args[0]).strip("'\""))
            elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
                found.add(ast.unparse(node.slice).strip("'\""))
    assert found <= PATHS | set(NOT_PATHS), "say in NOT_PATHS what it holds, or test below how its path is read"
    assert found >= PATHS


@pytest.mark.parametrize("place", ["foo://bucket/x", "gs:/x"])
def test_a_variable_that_names_no_place_is_one_line(place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(download.CACHE_VARIABLE, place)
    monkeypatch.setenv("TFDS_DATA_DIR", place)
    for read, name in (
        (download.cache_folder, download.CACHE_VARIABLE),
        (lambda: find_dataset("tfds:oxford_iiit_pet"), "TFDS_DATA_DIR"),
    ):
        with pytest.raises(DeepLabError) as caught:
            read()
        assert place in str(caught.value) and "\n" not in str(caught.value), name
    assert not list(tmp_path.iterdir())


def test_a_variable_may_begin_with_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(download.CACHE_VARIABLE, "~/cache")
    assert download.cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("TFDS_DATA_DIR", "~/sets")
    with pytest.raises(DeepLabError, match=f"{tmp_path}/sets"):
        find_dataset("tfds:oxford_iiit_pet")


def test_an_unknown_scheme_is_one_line_from_python_too(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for read in (lambda: find_dataset("foo://bucket/x"), lambda: find_dataset(None, "foo://bucket/x")):
        with pytest.raises(DeepLabError, match="^foo://bucket/x: foo:// is no file system that TensorFlow") as caught:
            read()
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
