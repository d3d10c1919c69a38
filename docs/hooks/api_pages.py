"""The pages of the Python API: the public names in groups; mkdocstrings fills in their docstrings."""

import dataclasses
import re

from deeplab_tf import config

# Title -> (file, what the page begins with, public names, other objects that they return).
GROUPS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "Use a model": (
        "use",
        "A picture of any kind in, classes out; or weights as a Keras model.",
        ("Segmenter", "load", "load_backbone", "predict", "DeepLabError"),
        ("deeplab_tf.inference.segmented.SegmentedImage", "deeplab_tf.inference.segmented.SegmentedBatch"),
    ),
    "Build a network": (
        "build",
        "Every model flag of the release is a field of `ModelConfig`, with its name and default. Layers are named by "
        "their TF1 scopes, with `.` for `/`.",
        ("ModelConfig", "build_model", "build_backbone"),
        (),
    ),
    "Train": (
        "train",
        "The step of `train`, and what Keras's `compile` and `fit` take in its place.",
        (
            *("DataConfig", "TrainConfig", "RunConfig", "Experiment", "make_dataset", "make_train_step"),
            *("SegmentationLoss", "MeanIoU", "PolyDecay"),
        ),
        (),
    ),
    "Score and export": (
        "score",
        "The scores of `eval`, and files for other programs.",
        ("EvalConfig", "evaluate", "ExportConfig", "export"),
        (),
    ),
    "Weights of other homes": (
        "weights",
        "TensorFlow 1's checkpoints, there and back, and the Hugging Face Hub.",
        ("load_tf1_checkpoint", "save_tf1_checkpoint", "push"),
        (),
    ),
    "The CRF": ("crf", "", ("crf",), ()),
    "Published results": ("published", "", ("published",), ()),
}
MODULES = {"crf": "deeplab_tf.ops.crf", "published": "deeplab_tf.zoo.published"}


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _fields(name: str) -> str:
    """Returns the table of a configuration's fields, with the help of their flags."""
    options = getattr(config, name)
    rows: list[str] = []
    for field in dataclasses.fields(options):
        if "help" in field.metadata:
            kind = (
                field.type.__name__ if isinstance(field.type, type) else re.sub(r"[\w.]+\.(\w)", r"\1", str(field.type))
            )
            cells = (f"`{field.name}`", _cell(kind).replace("[", "\\["), f"`{field.default!r}`")
            rows.append(f"| {' | '.join(cells)} | {_cell(field.metadata['help'])} |\n")
    head = "| field | type | default | |\n| --- | --- | --- | --- |\n"
    return f"\n{head}{''.join(rows)}\n" if rows else ""


def page(title: str) -> str:
    """Returns the page of a group as Markdown."""
    _, text, names, returned = GROUPS[title]
    parts = [f"# {title}\n\n{text}\n"]
    for name in names:
        parts.append(f"\n::: {MODULES.get(name, f'deeplab_tf.{name}')}\n")
        if isinstance(getattr(config, name, None), type):
            parts += ["    options:\n      members: false\n      merge_init_into_class: false\n", _fields(name)]
    parts += [f"\n::: {name}\n" for name in returned]
    return "".join(parts)
