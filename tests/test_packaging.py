"""What an installation holds: setup.cfg names every package and every data file of the checkout."""

import configparser
import pathlib

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
