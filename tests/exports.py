"""What the tests of `deeplab-tf export` share: the embedded network, the command, and what it leaves."""

import json
import pathlib

from commands import finished

from deeplab_tf.tools import export_model as tool

EMBEDDED = "shapes_resnet"


def certificate_of(path: pathlib.Path) -> dict:
    file = path / "certificate.json" if path.is_dir() else path.with_name(f"{path.name}.certificate.json")
    return json.loads(file.read_text())


def exported(tmp_path, name: str, *flags: object, checkpoint: object = EMBEDDED, status: int = 0) -> pathlib.Path:
    """Runs the command, and returns the path it was given."""
    path = tmp_path / name
    flags = (f"--checkpoint_path={checkpoint}", f"--export_path={path}", "--num_images=3", *flags)
    assert finished(tool.run, *flags) == status
    return path
