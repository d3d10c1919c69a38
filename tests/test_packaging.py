"""What an installation holds: setup.cfg names every package and every data file of the checkout; what is released."""

import configparser
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pages
import pytest
import yaml

from deeplab_tf.version import __version__

ROOT = pathlib.Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def folders_of(package: str) -> pathlib.Path:
    """Returns the folder of a package: the sub-packages tools, configs and checkpoints lie beside deeplab_tf."""
    folders = dict(line.split(" = ") for line in SETUP["options"]["package_dir"].split("\n") if line)
    parents = [parent for parent in folders if f"{package}.".startswith(f"{parent}.")]
    parent = max(parents, key=len)
    return ROOT.joinpath(folders[parent], *package[len(parent) :].split(".")[1:])


PACKAGES = {package: folders_of(package) for package in SETUP["options"]["packages"].split()}


def files_of(folder: str) -> list[pathlib.Path]:
    """Returns the files below a folder of the checkout, without what Python writes."""
    return [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_every_package_is_installed():
    modules = [
        path for folder in ("deeplab_tf", "tools", "configs") for path in files_of(folder) if path.suffix == ".py"
    ]
    assert {path.parent for path in modules} <= set(PACKAGES.values())


def test_every_data_file_is_installed():
    installed = set()
    for package, patterns in SETUP["options.package_data"].items():
        for pattern in patterns.split(","):
            found = set(PACKAGES[package].glob(pattern.strip()))
            assert found, f"{package}: nothing matches {pattern}"
            installed |= found
    data = [path for folder in ("deeplab_tf", "tools", "configs") for path in files_of(folder) if path.suffix != ".py"]
    data += (ROOT / "checkpoints").glob("*.json")
    assert set(data) <= installed


# ---- what is released


def test_the_metadata_say_what_is_supported():
    metadata = SETUP["metadata"]
    classified = re.findall(r"Python :: (3\.\d+)$", metadata["classifiers"], re.MULTILINE)
    assert classified == ["3.10", "3.11", "3.12", "3.13"]
    # Of each version, the first with tarfile's filters; the last that TensorFlow has.
    assert SETUP["options"]["python_requires"] == ">=3.10.12,!=3.11.0,!=3.11.1,!=3.11.2,!=3.11.3,<3.14"
    assert re.search(r"^keras-cv>=0\.9,<0\.10\b", SETUP["options"]["install_requires"], re.MULTILINE)
    assert all(address.startswith("https://") for address in re.findall(r"= (\S+)", metadata["project_urls"]))


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__ and citation["title"] == SETUP["metadata"]["name"]
    assert citation["license"] == SETUP["metadata"]["license"]
    assert {"cff-version", "message", "authors"} <= set(citation)


def test_issue_forms_ask_for_the_doctor():
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    assert {path.stem for path in forms} == {"error", "wrong_result", "wish"}
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        fields = {field.get("id"): field for field in form["body"]}
        assert {"name", "description"} <= set(form)
        assert path.stem == "wish" or "deeplab-tf doctor" in fields["doctor"]["attributes"]["description"]


def test_the_images_serve():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE))
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert {service["build"]["target"] for service in services.values()} == {"cpu", "cuda"} <= stages
    extras = {extra for found in re.findall(r"\$\{wheel\}\[([\w,]+)\]", text) for extra in found.split(",")}
    assert "serve" in extras <= set(SETUP["options.extras_require"])
    start = json.loads(re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)[-1])
    pages.require_parsed(start)
    python = re.findall(r"^FROM python:(3\.\d+)-slim", text, re.MULTILINE)
    assert python and set(python) <= {"3.10", "3.11", "3.12", "3.13"}
    assert re.findall(r"^USER (\w+)$", text, re.MULTILINE) == ["1000", "1000"]
    linter = pathlib.Path(sys.executable).with_name("hadolint")
    looked = subprocess.run([linter, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (looked.returncode, looked.stdout) == (0, "")


@pytest.mark.heavy
def test_the_built_files_hold_everything_and_run(tmp_path):
    source = tmp_path / "source"
    left_out = shutil.ignore_patterns(".git", "__pycache__", "*.egg-info", "build", "dist", "demo", ".venv*")
    shutil.copytree(ROOT, source, ignore=left_out, symlinks=True)
    run = functools.partial(subprocess.run, check=True, capture_output=True, text=True, cwd=tmp_path)
    built = tmp_path / "dist"
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(source)])
    (wheel,) = built.glob("*.whl")
    (archive,) = built.glob("*.tar.gz")
    checked = run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(archive)])
    assert checked.stdout.count("PASSED") == 2
    expected = set()
    for package, folder in PACKAGES.items():
        inside = package.replace(".", "/")
        patterns = SETUP["options.package_data"].get(package, "").split(",")
        files = [
            *folder.glob("*.py"),
            *(path for pattern in patterns if pattern for path in folder.glob(pattern.strip())),
        ]
        expected |= {f"{inside}/{path.relative_to(folder).as_posix()}" for path in files}
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as contents:
        names = {name for name in contents.namelist() if ".dist-info/" not in name}
        contents.extractall(installed)
    assert names == expected
    with tarfile.open(archive) as contents:
        shipped = {name.partition("/")[2] for name in contents.getnames()}
    assert {"README.md", "LICENSE", "setup.cfg", "pyproject.toml", "tools/train.py", "configs/finetune.py"} <= shipped
    embedded = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "checkpoints").rglob("*.*") if path.suffix != ".pyc"
    }
    assert embedded <= shipped
    # The unpacked wheel alone, in an empty folder: the embedded network is found and described.
    environment = {**os.environ, "PYTHONPATH": str(installed), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "deeplab_tf.tools.cli", "describe", "shapes_resnet"]
    assert "small_resnet" in run(command, env=environment).stdout


def test_the_tests_install_every_extra():
    extras = dict(SETUP["options.extras_require"])
    (ours,) = re.findall(r"^deeplab_tf\[(.*)\]$", extras.pop("test"), re.MULTILINE)
    # A compiler and a GPU are not everywhere.
    assert set(ours.split(",")) == set(extras) - {"crf-benchmark", "cuda", "mediapipe"}
