"""The Apache Beam pipeline that builds records, for data that one machine cannot build. The extra `beam` installs Beam.

Each shard is one unit of work, written by the same function as without Beam, so that records, files and faults do not
depend on the runner. The input of the pipeline (the pairs) and its results (counts and faults) lie in files beside the
shards, because the size of a job's description is limited and the number of pairs is not.
"""

import contextlib
import dataclasses
import io
import json
import os
import shlex
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.data.build import PlannedShard, Writer, Written, write_shard
from deeplab_tf.data.faults import Fault
from deeplab_tf.data.label_survey import LabelSurvey
from deeplab_tf.data.packing import PackingRules, pack
from deeplab_tf.data.pairs import Pair
from deeplab_tf.documents.json_files import parse_json, read_json
from deeplab_tf.errors import DeepLabError, unknown_name

if TYPE_CHECKING:
    from apache_beam import Pipeline

RUNNERS = ("DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner")
_OWN_OPTIONS = ("FlinkRunner", "SparkRunner")  # their job servers accept options that the Python side does not know
_WORK = "work"
_PLAN = "plan.jsonl"


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A line of the plan: the number of a shard, its file, and what goes into it."""

    number: int
    file: str
    pairs: tuple[Pair, ...]


@dataclasses.dataclass(frozen=True)
class _Result:
    """What is noted of a shard: pixels of each label, its faults (message, kind, amounts), and its survey."""

    counts: tuple[int, ...]
    faults: tuple[tuple[str, str, tuple[tuple[int, int], ...]], ...]
    survey: dict[str, Any]


def beam_writer(runner: str, beam_options: Sequence[str] = ()) -> Writer:
    """Returns the writer for `build_records` that runs the pipeline on a Beam runner and waits for its end.

    All workers need this package and must see inputs and output under the paths given here. A shard is written under
    another name and then renamed, so that a shard that the runner tries twice is complete.

    Args:
      runner: one of RUNNERS.
      beam_options: the runner's own options, as on its command line: "--region=europe-west1 --job_name=voc", in one
        string or several.

    Raises:
      DeepLabError: the runner or an option is unknown, or Apache Beam is not installed. The writer raises it too, if
        the pipeline fails.
    """
    flags = runner_flags(runner, beam_options)

    def write(shards: Sequence[PlannedShard], rules: PackingRules) -> Iterator[Written]:
        work = os.path.join(os.path.dirname(shards[0].file), _WORK)
        require_shared(work, runner)
        files.path(work).mkdir(parents=True)
        with files.path(os.path.join(work, _PLAN)).open("w", encoding="utf-8") as plan:
            for number, shard in enumerate(shards):
                pairs = tuple(map(_with_absolute_paths, shard.pairs))
                plan.write(json.dumps(dataclasses.asdict(_Shard(number, shard.file, pairs))) + "\n")
        _run(runner, flags, work, rules)
        for number in range(len(shards)):
            yield _read_result(runner, work, number)
        files.remove(files.path(work))

    return write


def runner_flags(runner: str, beam_options: Sequence[str]) -> list[str]:
    """Returns the options of a runner as separate strings.

    Raises:
      DeepLabError: the runner or an option is unknown, or Apache Beam is not installed.
    """
    if runner not in RUNNERS:
        raise unknown_name("beam_runner", runner, RUNNERS)
    _require_beam()
    flags = [flag for text in beam_options for flag in shlex.split(text)]
    stray = [flag for flag in flags if not flag.startswith("--")]
    if stray:
        raise DeepLabError(f"--beam_options: {stray[0]!r}; expected --name=value, several apart by spaces")
    _require_known(runner, flags)
    return flags


def _require_beam() -> None:
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise DeepLabError(
            f"--beam_runner needs Apache Beam ({error}); pip install 'deeplab_tf[beam]', for Dataflow also "
            "'apache-beam[gcp]'"
        ) from None


def _require_known(runner: str, flags: Sequence[str]) -> None:
    """Raises DeepLabError for an option that Beam would ignore with only a warning."""
    from apache_beam.options.pipeline_options import PipelineOptions

    # The first PipelineOptions of a process sets up Beam's logging, which would otherwise keep the redirected stream.
    PipelineOptions([])
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            options = PipelineOptions(list(flags))
            known = options.get_all_options()
            everything = options.get_all_options(retain_unknown_options=True)
    except (SystemExit, ValueError) as error:  # argparse prints its usage and exits
        reason = (complaint.getvalue().strip() or str(error)).splitlines()[-1]
        raise DeepLabError(f"--beam_options={shlex.join(flags)}: Beam cannot read it ({reason})") from None
    unknown = sorted(set(everything) - set(known))
    if unknown and runner not in _OWN_OPTIONS:
        raise unknown_name("option in --beam_options", unknown[0], known)


def require_shared(place: str | os.PathLike[str], runner: str) -> None:
    """Raises DeepLabError where workers of a `runner` cannot see what this process sees at `place`."""
    if os.fspath(place).startswith("ram://") and runner != "DirectRunner":
        raise DeepLabError(
            f"--beam_runner={runner}: {place} is in the memory of this process; give a folder that all workers see"
        )


def _with_absolute_paths(pair: Pair) -> Pair:
    """Returns the pair with paths that mean the same in a worker's working directory."""

    def absolute(path: str) -> str:
        return str(files.path(path).absolute())

    return dataclasses.replace(pair, image=absolute(pair.image), label=absolute(pair.label) if pair.label else None)


def _run(runner: str, flags: Sequence[str], work: str, rules: PackingRules) -> None:
    import apache_beam as beam

    def build(pipeline: beam.Pipeline) -> None:
        plan = pipeline | beam.Create([os.path.join(work, _PLAN)])
        shards = plan | "Shards" >> beam.FlatMap(_read_plan) | beam.Reshuffle()
        _ = shards | "Write" >> beam.Map(_write, work, rules)

    run_pipeline(runner, flags, build)


def run_pipeline(runner: str, flags: Sequence[str], build: Callable[["Pipeline"], None]) -> None:
    """Runs a pipeline and waits for its end.

    Args:
      runner: one of RUNNERS.
      flags: the runner's options, as `runner_flags` returns them.
      build: adds the steps to an empty pipeline.

    Raises:
      DeepLabError: the pipeline fails.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    # Given by name, DirectRunner would first try to download another runner.
    engine = FnApiRunner() if runner == "DirectRunner" else runner
    try:
        with beam.Pipeline(engine, PipelineOptions(list(flags))) as pipeline:
            build(pipeline)
    except Exception as error:  # a runner, its job server and its workers may raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
        reason = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"  # the lines between are a stack trace
        raise DeepLabError(f"--beam_runner={runner}: {type(error).__name__}: {reason}") from error


# ---- on a worker


def _read_plan(plan: str) -> Iterator[str]:
    """Yields the lines of the plan, one for each shard."""
    with files.path(plan).open(encoding="utf-8") as lines:
        yield from lines


def _write(line: str, work: str, rules: PackingRules) -> None:
    """Writes the shard that a line of the plan describes, and its counts and faults to a file in `work`."""
    shard = parse_json(line, _Shard)
    attempt = os.path.join(work, f"{shard.number}.{uuid.uuid4().hex}")
    written = write_shard(attempt, (pack(pair, rules.labels, rules.photographs) for pair in shard.pairs))
    files.move(files.path(attempt), files.path(shard.file))
    with files.written(os.path.join(work, f"{shard.number}.json"), durable=False) as note:
        faults = tuple((str(fault), fault.kind, fault.amounts) for fault in written.faults)
        result = _Result(tuple(written.counts.tolist()), faults, written.survey.to_json())
        note.write_text(json.dumps(dataclasses.asdict(result)), encoding="utf-8")


def _read_result(runner: str, work: str, number: int) -> Written:
    """Returns the counts and faults that `_write` noted for a shard."""
    try:
        values = read_json(files.path(os.path.join(work, f"{number}.json")), _Result)
    except FileNotFoundError:
        raise DeepLabError(f"--beam_runner={runner}: the pipeline ended before shard {number} was written") from None
    faults = [Fault(*fault) for fault in values.faults]
    return Written(np.array(values.counts, np.int64), faults, LabelSurvey.from_json(values.survey))
