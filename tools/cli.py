"""deeplab-tf: DeepLab v1 to v3+ for TensorFlow 2, faithful to Google's release.

Usage: deeplab-tf COMMAND [flags]; `deeplab-tf COMMAND --help` lists the flags of one.
"""

import importlib
import sys
from collections.abc import Sequence

from deeplab_tf.errors import unknown_name
from deeplab_tf.tools.ending import ending
from deeplab_tf.version import __version__

COMMANDS = {
    "convert": "weights of the release -> model directory, or back to a TF1 checkpoint",
    "predict": "segment images",
    "train": "train or fine-tune with the release's flags, or go on with a run",
    "eval": "score a checkpoint, or the checkpoints of a training run as they appear",
    "compare": "two reports of eval: differences by score, class and image, with intervals",
    "vis": "draw the predictions for the images of a data set",
    "export": "SavedModel, frozen graph, TFLite or ONNX, each with a certificate",
    "serve": "answer TensorFlow Serving's REST requests, with a page to try the model on",
    "build-data": "images and labels -> TFRecords",
    "doctor": "find what is silently wrong with data, a run or a checkpoint",
    "verify": "prove released checkpoints: archive, weights, prediction, published score",
    "pack": "archives for the test servers of PASCAL VOC, Cityscapes and ADE20K, checked",
    "panoptic": "score panoptic segmentations in COCO's format: panoptic quality, parsing covering",
    "describe": "parameters, multiply-adds, memory, rates and receptive field of a model or a configuration",
    "zoo": "list the released checkpoints",
    "published": "list every published result, or build the networks and compare their costs",
    "demo": "convert, segment and score the embedded checkpoint; needs no data and no network",
    "benchmark": "measure this machine",
}
# Commands whose file has another name: the release's export_model.py keeps its name.
_FILES = {"export": "export_model"}


def file_of(command: str) -> str:
    """Returns the name of a command's module in tools."""
    return _FILES.get(command, command.replace("-", "_"))


def _usage() -> str:
    rows = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    return f"{(__doc__ or '').strip()}\n\nCommands:\n{rows}"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names, and imports no other."""
    with ending("deeplab-tf"):
        _run(list(sys.argv if argv is None else argv))


def _run(argv: list[str]) -> None:
    if len(argv) < 2 or argv[1] in ("--help", "-h", "help"):
        print(_usage())
        sys.exit(0 if len(argv) > 1 else 1)
    if argv[1] == "--version":
        print(f"deeplab_tf {__version__}")
        sys.exit(0)
    if argv[1] not in COMMANDS:
        print(f"deeplab-tf: {unknown_name('command', argv[1], COMMANDS)}", file=sys.stderr)
        sys.exit(1)
    tool = importlib.import_module(f"deeplab_tf.tools.{file_of(argv[1])}")
    tool.run([f"deeplab-tf {argv[1]}", *argv[2:]])


if __name__ == "__main__":
    main()
