r"""Compares two evaluations of the same images: scores, classes and images, with intervals of the differences.

  deeplab-tf eval --checkpoint_dir=exp/a --report=reports/a --dataset_dir=tfrecord --max_number_of_evaluations=1
  deeplab-tf eval --checkpoint_dir=exp/b --report=reports/b --dataset_dir=tfrecord --max_number_of_evaluations=1
  deeplab-tf compare reports/a reports/b --output_dir=reports/a_b

A and B are folders that eval wrote with --report. The table on the screen has the scores of both in percent, what B has
more, and the 95 % interval of that difference by a paired bootstrap over images: where it holds 0, images like these do
not tell the two apart. --output_dir also writes compare.html, a page for the browser, and compare.json.
"""

from collections.abc import Sequence

from absl import flags

from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import options


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    text = "the two folders of reports, A and B; they may also be given without the flag's name"
    options.define_paths(values, "reports", [], text)
    options.define_path(values, "output_dir", None, "folder for compare.html and compare.json (default: neither)")


def main(values: flags.FlagValues) -> None:
    """Prints the table, and writes the page where a folder is given."""
    if len(values.reports) != 2:
        given = ", ".join(values.reports) or "none"
        raise DeepLabError(f"--reports: {given}; expected the two folders that eval --report wrote: A B")
    if values.output_dir:
        options.require_writable(values, "output_dir")
    from deeplab_tf.evaluation.report.comparison import compare, comparison_table, write_comparison

    found = compare(*values.reports)
    print(comparison_table(found))
    if values.output_dir:
        write_comparison(values.output_dir, found)
        print(f"Written: {values.output_dir}/compare.html, compare.json")


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv, rest_is="reports")


if __name__ == "__main__":
    run()
