r"""Opens a page on which pictures are labelled, those first that a model is least sure of, its masks as a start.

  deeplab-tf label --images=photos --checkpoint=exp/street
  deeplab-tf label --images=photos --checkpoint=shapes_resnet --output=my_data --add=curb,manhole
  deeplab-tf build-data --dataset=folder --root=my_data --output_dir=my_records

  deeplab-tf doctor --dataset_dir=my_data --checkpoint=exp/street --suspects=suspects.json
  deeplab-tf label --suspects=suspects.json --output=my_data_2

Masks are corrected by polygon, brush and filling, with mouse, fingers or keys alone. Each change is on disk before the
page calls it saved: a server that is killed loses none, and a reload goes on where one was. Pictures marked as done
make up the data set that build-data reads. It listens on this machine alone, as serve does; Ctrl-C ends it.
"""

import sys
from collections.abc import Sequence

from absl import flags

from deeplab_tf.config import LabelConfig, ModelConfig
from deeplab_tf.tools import help_pages, listening, options

_USES: tuple[options.Use[flags.FlagValues], ...] = (
    options.Use(("longest_side", "runtime", "tf32"), "--checkpoint", lambda values: values.checkpoint),
)
_FIRST = ("images", "checkpoint", "output", "suspects", "add", "port", "host", "token_file")


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    text = f"model whose classes are labelled and whose masks are the start: {options.CHECKPOINT_HELP}"
    options.define_path(values, "checkpoint", None, text, named=True)
    options.define_flags(values, LabelConfig)
    options.define_flags(values, ModelConfig)
    help_pages.put_first(values, _FIRST)


def main(values: flags.FlagValues) -> int:
    """Serves the page until the process is interrupted."""
    choice = LabelConfig(**options.given(values, LabelConfig))
    if choice.suspects is None:
        options.require(values, "images", "checkpoint")
    options.require_use(values, _USES, values)
    changes = options.given(values, ModelConfig)
    listening.require_packages("label")
    options.start_tensorflow()
    options.tell_exactness(choice.tf32)
    from deeplab_tf.labelling.app import build_label_app
    from deeplab_tf.labelling.labeller import Labeller
    from deeplab_tf.serving.access import Access, exposure, tls_context
    from deeplab_tf.serving.server import serving
    from deeplab_tf.weights.loading import open_model

    Access(choice)  # mistakes in its files are told before the work
    tls_context(choice)
    loaded = open_model(values.checkpoint, changes) if values.checkpoint else None
    labeller = Labeller(loaded, choice)
    with options.silenced():
        labeller.prepare()
    for note in loaded.notes if loaded else ():
        print(f"Note: {note}")
    warning = exposure(choice)
    if warning is not None:
        print(f"Warning: {warning}", file=sys.stderr)
    wait = listening.end_of_signals()
    with labeller.running(), listening.logged(choice.log_requests), serving(labeller, build_label_app) as address:
        folder = labeller.store.folder
        print(f"Pictures: {len(labeller.pictures)}\nOutput: {folder}\nPage: {address}/\nCtrl-C ends it.", flush=True)
        status = wait()
        print(f"Stopped; records: deeplab-tf build-data --dataset=folder --root={folder} --output_dir=...")
    return status


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
