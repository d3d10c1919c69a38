"""deeplab-tf: DeepLab v1 to v3+ for TensorFlow 2, faithful to Google's release.

Usage: deeplab-tf COMMAND [flags]; `deeplab-tf COMMAND --help` describes one, `deeplab-tf help TOPIC` a subject.
"""

import importlib
import sys
import textwrap
from collections.abc import Iterable, Sequence

from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.tools import help_pages
from deeplab_tf.tools.ending import ending
from deeplab_tf.version import __version__

COMMANDS = {
    "convert": "weights of the release -> model directory, or back to a TF1 checkpoint",
    "predict": "segment images",
    "train": "train or fine-tune with the release's flags, or go on with a run",
    "extend": "add classes to a trained network without losing the old ones",
    "eval": "score a checkpoint, or the checkpoints of a training run as they appear",
    "compare": "two reports of eval: differences by score, class and image, with intervals",
    "vis": "draw the predictions for the images of a data set",
    "export": "SavedModel, frozen graph, TFLite or ONNX, each with a certificate",
    "convert-to-tflite": "an 8-bit TFLite from a graph of quantised training, with the release's flags",
    "serve": "answer TensorFlow Serving's REST requests, with a page to try the model on",
    "label": "a page to label pictures on, those first that a model is least sure of",
    "build-data": "images and labels -> TFRecords",
    "doctor": "find what is silently wrong with data, a run or a checkpoint",
    "verify": "prove released checkpoints: archive, weights, prediction, published score",
    "pack": "archives for the test servers of PASCAL VOC, Cityscapes and ADE20K, checked",
    "panoptic": "score panoptic segmentations in COCO's format: panoptic quality, parsing covering",
    "classify": "classify photographs by an ImageNet checkpoint, the backbone as it was trained",
    "describe": "parameters, multiply-adds, memory, rates and receptive field of a model or a configuration",
    "zoo": "list the released checkpoints",
    "published": "list every published result, or build the networks and compare their costs",
    "demo": "convert, segment and score the embedded checkpoint; needs no data and no network",
    "benchmark": "measure this machine",
    "completion": "a script by which bash or zsh completes commands and flags",
}
# Commands whose file has another name: the release's export_model.py keeps its name.
_FILES = {"export": "export_model"}


def file_of(command: str) -> str:
    """Returns the name of a command's module in tools."""
    return _FILES.get(command, command.replace("-", "_"))


def _table(rows: Iterable[tuple[str, str]]) -> str:
    """Returns names with what they are about, in lines that fit the terminal."""
    return "\n".join(
        textwrap.fill(text, help_pages.width(), initial_indent=f"  {name:<19}", subsequent_indent=" " * 21)
        for name, text in rows
    )


def _usage() -> str:
    from deeplab_tf.tools.topics import TOPICS

    topics = [(name, about) for name, (about, _) in TOPICS.items()]
    return (
        f"{help_pages.text(__doc__ or '', help_pages.width())}\n\nCommands:\n{_table(COMMANDS.items())}\n\n"
        f"Topics:\n{_table(topics)}"
    )


def _explain(words: Sequence[str]) -> str:
    """Returns the text of a topic, whose words `-` joins, or without words the list of commands and topics."""
    from deeplab_tf.tools.topics import TOPICS

    if not words:
        return _usage()
    topic = "-".join(words).lower()
    if topic not in TOPICS:
        raise unknown_name("topic", " ".join(words), [*COMMANDS, *TOPICS])
    about, text = TOPICS[topic]
    return help_pages.text(f"{topic}: {about}\n\n{text}", help_pages.width())


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names, and imports no other."""
    with ending("deeplab-tf"):
        _run(list(sys.argv if argv is None else argv))


def _run(argv: list[str]) -> None:
    if len(argv) < 2 or argv[1] in ("--help", "-h", "--helpfull"):
        print(_usage())
        sys.exit(0 if len(argv) > 1 else 1)
    if argv[1] == "help" and argv[2:3] and argv[2] in COMMANDS:
        argv = [argv[0], argv[2], "=".join(["--help", *argv[3:4]])]
    if argv[1] == "help":
        try:
            print(_explain(argv[2:]))
        except DeepLabError as error:
            print(f"deeplab-tf: {error}", file=sys.stderr)
            sys.exit(1)
        sys.exit(0)
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
