"""Converts weights of Google's release, Caffe's, Hugging Face's or PyTorch's to a model directory, or back to TF1.

  deeplab-tf convert --checkpoint=deeplabv3_pascal_train_aug_2018_01_04.tar.gz --output_dir=models/xception65
  deeplab-tf convert --checkpoint=models/xception65 --output_dir=tf1 --to_tf1
  deeplab-tf convert --checkpoint=hf://google/deeplabv3_mobilenet_v2_1.0_513 --output_dir=models/hub
  deeplab-tf convert --checkpoint=models/hub --output_dir=repository --to_hf

The network is inferred from the names and shapes of the variables; what they do not determine (rates, output stride)
comes from the zoo's table or a flag, and is printed. Every variable must find its place, or nothing is written. The
receipt lists source and target of each.
"""

from collections.abc import Sequence

from absl import flags

from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import help_pages, options

_USES: tuple[options.Use[flags.FlagValues], ...] = (
    options.Use(("dataset",), "a model directory, which --to_tf1 does not write", lambda values: not values.to_tf1),
    options.Use(("scores", "certificate", "licence"), "--to_hf", lambda values: values.to_hf),
    options.Use(
        ("keep_training_state",), "a checkpoint, which --to_hf does not write", lambda values: not values.to_hf
    ),
)


_FIRST = (
    "checkpoint",
    "output_dir",
    "to_tf1",
    "to_hf",
    "dataset",
    "output_stride",
    "atrous_rates",
    "keep_training_state",
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    options.define_path(values, "checkpoint", None, options.CHECKPOINT_HELP)
    options.define_path(values, "output_dir", None, "folder to write; it must not hold a model yet")
    text = "write a TF1 checkpoint for the original code instead of a model directory"
    flags.DEFINE_boolean("to_tf1", False, text, flag_values=values)
    text = (
        "write a repository for the Hugging Face Hub (model.safetensors, deeplab.json, README.md) instead; MobileNetV2 "
        "without a decoder as transformers loads it"
    )
    flags.DEFINE_boolean("to_hf", False, text, flag_values=values)
    options.define_path(values, "scores", None, "for the card of --to_hf: metrics.json of an evaluation")
    options.define_path(values, "certificate", None, "for the card of --to_hf: certificate.json of an export")
    text = "for the card of --to_hf: the licence of the weights, as the Hub names it, such as apache-2.0"
    flags.DEFINE_string("licence", None, text, flag_values=values)
    text = "keep optimiser slots, step and moving averages, so that training can go on"
    flags.DEFINE_boolean("keep_training_state", False, text, flag_values=values)
    text = "convert weights that are not finite, or whose variances are below 0, which is refused otherwise"
    flags.DEFINE_boolean("allow_non_finite", False, text, flag_values=values)
    text = (
        "the data set that gives the classes their names and colours: a name of the catalogue; a folder that holds a "
        "dataset.json, written with a separator, ./data; or tfds:name (default: by the number of classes)"
    )
    options.define_path(values, "dataset", None, text, named=True)
    options.define_flags(values, ModelConfig)
    help_pages.put_first(values, _FIRST)


def main(values: flags.FlagValues) -> None:
    """Converts the weights and prints the configuration, the assumptions and the receipt's summary."""
    options.require(values, "checkpoint", "output_dir")
    options.require_use(values, _USES, values)
    changes = options.given(values, ModelConfig)
    options.require_writable(values, "output_dir")
    options.start_tensorflow()
    from deeplab_tf.weights.loading import open_model, renamed
    from deeplab_tf.weights.model_directory import check_target, save_model
    from deeplab_tf.weights.repository import read_evidence, write_repository

    if values.to_hf and values.to_tf1:
        raise DeepLabError("--to_hf and --to_tf1: each says what is written; expected one of them")
    evidence = read_evidence(values.scores, values.certificate, values.licence)
    check_target(values.output_dir)
    opened = open_model(values.checkpoint, changes, dataset=values.dataset, keep_state=values.keep_training_state)
    loaded = renamed(opened, values.dataset)
    if not values.allow_non_finite:
        loaded.receipt.require_sound()
    what = "TF1 checkpoint" if values.to_tf1 else "model directory"
    if values.to_hf:
        both = write_repository(values.output_dir, loaded.model, loaded.receipt, loaded.card, evidence)
        what = f"repository for the Hugging Face Hub{', which transformers loads too' if both else ''}"
    else:
        card = None if values.to_tf1 else loaded.card
        save_model(values.output_dir, loaded.model, loaded.receipt, card=card, state=loaded.state)
    print("Configuration")
    print(options.table({"kind": loaded.card.kind, **loaded.card.config.to_json(), "dataset": loaded.card.dataset}))
    for note in loaded.notes:
        print(f"Note: {note}")
    print(loaded.receipt.summary())
    print(f"Written: {values.output_dir} ({what}, and receipt.json)")


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
