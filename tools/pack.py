r"""Packs predictions for the evaluation server of PASCAL VOC, Cityscapes or ADE20K, after checking all of them.

  deeplab-tf vis --checkpoint_dir=exp/voc --vis_split=test --vis_logdir=vis --also_save_raw_predictions ...
  deeplab-tf pack --server=voc --predictions=vis/raw_segmentation_results --images=VOC2012test/JPEGImages \
    --list_file=VOC2012test/ImageSets/Segmentation/test.txt
  deeplab-tf pack --server=cityscapes --predictions=vis/raw_segmentation_results --images=leftImg8bit/test --dry_run

Every image must have its prediction, of its size, with class indices and under a name that the server knows. If there
are faults, all of them are listed and nothing is written.
"""

from collections.abc import Sequence

from absl import flags

from deeplab_tf.config import PackConfig
from deeplab_tf.tools import options

_USES: tuple[options.Use[PackConfig], ...] = (
    options.Use(("competition",), "--server=voc", lambda config: config.server == "voc"),
    options.Use(("ids",), "--server=cityscapes", lambda config: config.server == "cityscapes"),
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    options.define_flags(values, PackConfig)


def main(values: flags.FlagValues) -> None:
    """Checks the predictions and packs them into an archive; with --dry_run only checks them."""
    config = PackConfig(**options.given(values, PackConfig))
    options.require(values, "server", "predictions")
    from deeplab_tf.evaluation.pack import make_plan, pack

    options.require_use(values, _USES, config)
    plan = make_plan(config)
    print(f"{len(plan.predictions):,} predictions are there and fit, as {plan.member(next(iter(plan.predictions)))}")
    for note in plan.notes:
        print(f"Note: {note}")
    if config.dry_run:
        print(f"Nothing was written (--dry_run); it would be {plan.output}")
    else:
        print(f"Written: {pack(plan)}")


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
