"""Lists the published results of the DeepLab papers and of the zoo, or builds their networks and compares the costs.

  deeplab-tf published --filter="v3plus table5"      the rows that have all of these words
  deeplab-tf published --check                       build every network, compare parameters and multiply-adds
  deeplab-tf published --lineage                     one row for each system as Markdown, as in the documentation

Multiply-adds are counted as in the papers, by the rules of TensorFlow 1's profiler: atrous convolutions at the size at
which they ran (space to batch), average poolings too. A row whose figure is not met to 1 % states the reason. The names
are those of deeplab_tf.published.RESULTS.
"""

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags

from deeplab_tf.tools import options
from deeplab_tf.zoo.published import LINEAGE, RESULTS, PublishedResult, find

if TYPE_CHECKING:
    import keras

_TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A published row beside the counts of its network here; None if the paper gives no such figure."""

    result: PublishedResult
    parameters: float | None
    multiply_adds: float | None

    @property
    def deviations(self) -> dict[str, float]:
        """Name of each published figure -> the relative deviation of the count from it."""
        figures = ("parameters", "multiply_adds")
        return {n: getattr(self, n) / getattr(self.result, n) - 1 for n in figures if getattr(self.result, n)}

    @property
    def met(self) -> bool:
        """Whether all published figures are met to 1 %."""
        return all(abs(deviation) <= _TOLERANCE for deviation in self.deviations.values())


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    text = "only rows with all of these words in name, source or settings"
    flags.DEFINE_string("filter", "", text, flag_values=values)
    flags.DEFINE_boolean("check", False, "build the networks and compare their costs", flag_values=values)
    text = "print one row for each system, with the counts at 513 x 513, as Markdown"
    flags.DEFINE_boolean("lineage", False, text, flag_values=values)


_USES: tuple[options.Use[flags.FlagValues], ...] = (
    options.Use(("filter", "check"), "a command without --lineage", lambda values: not values.lineage),
)


def _multiply_adds(model: "keras.Model", result: PublishedResult) -> int:
    from deeplab_tf.network.cost import model_cost
    from deeplab_tf.ops.resizing import scale_dimension

    height, width = result.size
    sizes: list[tuple[int, int] | None] = [None]  # None: the network's own
    if not result.config.crop_size:
        sizes = [(scale_dimension(height, scale), scale_dimension(width, scale)) for scale in result.scales]
    total = sum(model_cost(model, size=size, as_profiled=True).multiply_adds or 0 for size in sizes)
    return total * (2 if result.flip else 1)


def comparisons(results: list[PublishedResult]) -> Iterator[Comparison]:
    """Yields each row beside the counts; a network that several rows share is built once."""
    from deeplab_tf.network.build import build_model
    from deeplab_tf.network.cost import model_cost

    rows = collections.defaultdict(list)
    for result in results:
        rows[result.config].append(result)
    for config, sharing in rows.items():
        model = build_model(config, zeros=True)
        parameters = model_cost(model).parameters
        for result in sharing:
            multiply_adds = _multiply_adds(model, result) if result.multiply_adds else None
            yield Comparison(result, parameters if result.parameters else None, multiply_adds)


def _amount(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e9:.2f}B" if value >= 1e9 else f"{value / 1e6:.2f}M"


def _row(result: PublishedResult) -> tuple[str, ...]:
    where = f"{result.dataset} {result.split}" + ("" if result.metric == "mIoU" else f", {result.metric}")
    cost = _amount(result.parameters), _amount(result.multiply_adds)
    return result.name, f"{result.score:.2f}", where, result.settings, *cost, result.source


def _print_rows(results: list[PublishedResult]) -> None:
    import rich.box
    import rich.console
    import rich.table

    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for column in ("name", "%", "data", "settings", "parameters", "multiply-adds", "source"):
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for result in results:
        table.add_row(*_row(result))
    console = rich.console.Console()
    # A pipe has no width, so give it one that fits each row on a line.
    (console if console.is_terminal else rich.console.Console(width=220)).print(table)


def _describe(comparison: Comparison) -> str:
    result = comparison.result
    if not comparison.deviations:
        return f"{result.name}: builds"
    counts = "; ".join(
        f"{name.replace('_', '-')} {_amount(getattr(comparison, name))} for {_amount(getattr(result, name))} ({d:+.2%})"
        for name, d in comparison.deviations.items()
    )
    reason = f" - {result.unmet}" if result.unmet else ""
    return f"{result.name}: {counts}{'' if comparison.met else ' DIFFERS'}{reason}"


def _check(results: list[PublishedResult]) -> int:
    """Prints every comparison; returns 1 if a row differs without a stated reason, or has one and does not differ."""
    options.start_tensorflow()
    wrong = []
    met = 0
    excused = 0
    for comparison in comparisons(results):
        print(_describe(comparison), flush=True)
        met += comparison.met and bool(comparison.deviations)
        excused += not comparison.met and bool(comparison.result.unmet)
        if comparison.met == bool(comparison.result.unmet):
            wrong.append(comparison.result.name)
    print(f"{len(results)} networks build; {met} rows meet their figures to 1 %, {excused} differ for a known reason")
    if wrong:
        print(f"{len(wrong)} differ without a reason, or meet their figures in spite of one: {', '.join(wrong)}")
    return 1 if wrong else 0


def _print_lineage() -> None:
    options.start_tensorflow()
    from deeplab_tf.network.build import build_model
    from deeplab_tf.network.cost import model_cost

    columns = ("system", "backbone", "parameters", "multiply-adds", "published", "command")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for system, (name, recipe) in LINEAGE.items():
        result = RESULTS[name]
        cost = model_cost(build_model(result.config, zeros=True), size=(513, 513))
        score = f"{result.score:g} % ({result.split}, {result.settings})"
        cells = (result.config.model_variant, _amount(cost.parameters), _amount(cost.multiply_adds), score)
        print(f"| {system} | {' | '.join(cells)} | `deeplab-tf train --config={recipe}` |")


def main(values: flags.FlagValues) -> int | None:
    """Prints the published results, or with --check compares them and returns 1 if one differs unexpectedly."""
    options.require_use(values, _USES, values)
    if values.lineage:
        _print_lineage()
        return None
    results = find(values.filter)
    if values.check:
        return _check(results)
    _print_rows(results)
    return None


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
