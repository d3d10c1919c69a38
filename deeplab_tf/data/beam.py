"""Building records as an Apache Beam pipeline, for data that one machine cannot build. The extra `beam` installs Beam.

Each shard is one unit of work, written by the function that writes it here, so that records, files and faults are the
same whatever the runner. What the pipeline is given (the pairs) and what it returns (counts and faults) lie in files
beside the shards: a job's description has a size limit, millions of pairs have none.
"""

import contextlib
import dataclasses
import io
import json
import os
import shlex
import uuid
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from deeplab_tf.data.build import PlannedShard, Writer, Written, write_shard
from deeplab_tf.data.pairs import LabelRules, Pair, pack
from deeplab_tf.data.places import is_remote
from deeplab_tf.errors import DeepLabError, unknown_name

RUNNERS = ("DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner")
_OWN_OPTIONS = ("FlinkRunner", "SparkRunner")  # their job servers know more options than the Python side
_WORK, _PLAN = "work", "plan.jsonl"


def beam_writer(runner: str, beam_options: Sequence[str] = ()) -> Writer:
    """Returns the writer for `build_records` that runs on a Beam runner and waits for its end.

    All workers need this package and must see inputs and output under the paths given here. A shard is written under
    another name and renamed, so that one that is tried twice is whole.

    Args:
      runner: one of RUNNERS.
      beam_options: the runner's own options, as on its command line: "--region=europe-west1 --job_name=voc", in one
        string or several.

    Raises:
      DeepLabError: an unknown runner or option, no Apache Beam; and when it writes, a pipeline that fails.
    """
    flags = runner_flags(runner, beam_options)

    def write(shards: Sequence[PlannedShard], rules: LabelRules) -> Iterator[Written]:
        work = os.path.join(os.path.dirname(shards[0].file), _WORK)
        tf.io.gfile.makedirs(work)
        with tf.io.gfile.GFile(os.path.join(work, _PLAN), "w") as plan:
            for number, shard in enumerate(shards):
                pairs = [dataclasses.asdict(_absolute(pair)) for pair in shard.pairs]
                plan.write(json.dumps({"number": number, "file": shard.file, "pairs": pairs}) + "\n")
        _run(runner, flags, work, rules)
        for number in range(len(shards)):
            yield _result(runner, work, number)
        tf.io.gfile.rmtree(work)

    return write


def runner_flags(runner: str, beam_options: Sequence[str]) -> list[str]:
    """Returns the options of a runner one by one. DeepLabError for an unknown runner or option, or no Apache Beam."""
    if runner not in RUNNERS:
        raise unknown_name("beam_runner", runner, RUNNERS)
    _require_beam()
    flags = [flag for text in beam_options for flag in shlex.split(text)]
    stray = [flag for flag in flags if not flag.startswith("--")]
    if stray:
        raise DeepLabError(f"--beam_options: {stray[0]!r}; expected --name=value, several apart by spaces")
    _require_known(runner, flags)
    return flags


def _require_beam():
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise DeepLabError(
            f"--beam_runner needs Apache Beam ({error}); pip install 'deeplab_tf[beam]', for Dataflow also "
            "'apache-beam[gcp]'"
        ) from None


def _require_known(runner: str, flags: Sequence[str]):
    """Raises DeepLabError for an option that Beam would pass over with a mere warning."""
    from apache_beam.options.pipeline_options import PipelineOptions

    PipelineOptions([])  # Beam's first look at options sets up logging, which must not see what follows
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            options = PipelineOptions(list(flags))
            known, everything = options.get_all_options(), options.get_all_options(retain_unknown_options=True)
    except (SystemExit, ValueError) as error:  # argparse prints a page and ends the process
        reason = (complaint.getvalue().strip() or str(error)).splitlines()[-1]
        raise DeepLabError(f"--beam_options={shlex.join(flags)}: Beam cannot read it ({reason})") from None
    unknown = sorted(set(everything) - set(known))
    if unknown and runner not in _OWN_OPTIONS:
        raise unknown_name("option in --beam_options", unknown[0], known)


def _absolute(pair: Pair) -> Pair:
    """Returns the pair with paths that mean the same in a worker's folder."""
    image, label = (path if not path or is_remote(path) else os.path.abspath(path) for path in (pair.image, pair.label))
    return dataclasses.replace(pair, image=image, label=label)


def _run(runner: str, flags: Sequence[str], work: str, rules: LabelRules):
    import apache_beam as beam

    def build(pipeline):
        plan = pipeline | beam.Create([os.path.join(work, _PLAN)])
        shards = plan | "Shards" >> beam.FlatMap(_shards) | beam.Reshuffle()
        _ = shards | "Write" >> beam.Map(_write, work, rules)

    run_pipeline(runner, flags, build)


def run_pipeline(runner: str, flags: Sequence[str], build: Callable):
    """Runs what `build` makes of an empty pipeline, and waits for its end. DeepLabError where it fails."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    # By its name, DirectRunner would first try to download another runner.
    engine = FnApiRunner() if runner == "DirectRunner" else runner
    try:
        with beam.Pipeline(engine, PipelineOptions(list(flags))) as pipeline:
            build(pipeline)
    except Exception as error:  # whatever a runner, its job server and its workers may raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
        reason = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"  # between them lies a stack
        raise DeepLabError(f"--beam_runner={runner}: {type(error).__name__}: {reason}") from error


# ---- the work of a worker


def _shards(plan: str) -> Iterator[str]:
    with tf.io.gfile.GFile(plan) as lines:
        yield from lines


def _write(line: str, work: str, rules: LabelRules):
    """Writes the shard that a line of the plan describes, and notes what became of it."""
    values = json.loads(line)
    pairs = (Pair(**pair) for pair in values["pairs"])
    attempt = os.path.join(work, f"{values['number']}.{uuid.uuid4().hex}")
    written = write_shard(attempt, (pack(pair, rules) for pair in pairs))
    tf.io.gfile.rename(attempt, values["file"], overwrite=True)
    with tf.io.gfile.GFile(f"{attempt}.json", "w") as note:
        json.dump({"counts": written.counts.tolist(), "faults": written.faults}, note)
    tf.io.gfile.rename(f"{attempt}.json", os.path.join(work, f"{values['number']}.json"), overwrite=True)


def _result(runner: str, work: str, number: int) -> Written:
    try:
        with tf.io.gfile.GFile(os.path.join(work, f"{number}.json")) as note:
            values = json.load(note)
    except tf.errors.NotFoundError:
        raise DeepLabError(f"--beam_runner={runner}: the pipeline ended before shard {number} was written") from None
    return Written(np.array(values["counts"], np.int64), values["faults"])
