r"""Scores panoptic segmentations in COCO's format, with the flags of the release's evaluation/eval_coco_format.py.

  deeplab-tf panoptic --gt_json_file=panoptic_val2017.json --gt_folder=panoptic_val2017 \
    --pred_json_file=predictions.json --pred_folder=predictions
  deeplab-tf panoptic --metric=pc --gt_json_file=panoptic_val2017.json --pred_json_file=predictions.json

The metric is printed for all categories, for things and for stuff, then for each category that occurs, in percent.
Crowds of the ground truth are ignored; a pixel whose number the JSON file does not list is category 0.
"""

from collections.abc import Sequence

from absl import flags

from deeplab_tf.tools import options

_USES: tuple[options.Use[flags.FlagValues], ...] = (
    options.Use(("normalize_by_image_size",), "--metric=pc", lambda values: values.metric == "pc"),
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    folder = "its PNGs, whose colours number the segments (default: the JSON file's path without .json)"
    options.define_path(values, "gt_json_file", None, "ground truth, a JSON file of COCO's panoptic segmentations")
    options.define_path(values, "gt_folder", None, folder)
    options.define_path(
        values, "pred_json_file", None, "predictions, another such file; images go together by image_id"
    )
    options.define_path(values, "pred_folder", None, folder)
    text = "pq (panoptic quality) or pc (parsing covering) (default: pq)"
    flags.DEFINE_enum("metric", "pq", ["pq", "pc"], text, flag_values=values)
    numbers = {
        "num_categories": (201, "categories are 0 to one below it (default: 201, COCO's)"),
        "ignored_label": (0, "category whose pixels do not count (default: 0)"),
        "max_instances_per_category": (256, "instances of a category in a picture, at most (default: 256)"),
        "intersection_offset": (None, "limit that the numbers of all segments must stay below (default: none)"),
        "num_workers": (0, "processes that share the images; 0: one, -1: as many as there are processors (default: 0)"),
        "print_digits": (3, "digits that a share of 1 is rounded to; 3 print one decimal of a percentage (default: 3)"),
    }
    for name, (default, help_text) in numbers.items():
        lower = -1 if name == "num_workers" else 0
        flags.DEFINE_integer(name, default, help_text, lower_bound=lower, flag_values=values)
    text = "pc: divide areas by the picture's, so that all pictures weigh the same (default: true)"
    flags.DEFINE_boolean("normalize_by_image_size", True, text, flag_values=values)


def main(values: flags.FlagValues) -> None:
    """Prints the table of results."""
    options.require(values, "gt_json_file", "pred_json_file")
    options.require_use(values, _USES, values)
    from deeplab_tf.evaluation.panoptic import read_panoptic, results_table, score_panoptic
    from deeplab_tf.ops.panoptic import PanopticQuality, ParsingCovering, Segments

    segments = Segments(
        values.num_categories, values.ignored_label, values.max_instances_per_category, values.intersection_offset
    )
    if values.metric == "pq":
        metric = PanopticQuality(segments)
    else:
        metric = ParsingCovering(segments, normalize_by_image_size=values.normalize_by_image_size)
    truth = read_panoptic(values.gt_json_file, values.gt_folder)
    found = read_panoptic(values.pred_json_file, values.pred_folder)
    for note in score_panoptic(metric, truth, found, processes=values.num_workers):
        print(f"Note: {note}")
    print(f"{len(truth.images):,} images, in percent")
    print(results_table(metric, truth, digits=values.print_digits))


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
