"""Segmenting more images than one machine can: `predict_files` as an Apache Beam pipeline (the extra `beam`).

Workers open the model once and segment batches of files by the code that segments them here, so that what is written is
the same. They need this package, and must see images, checkpoint and output under the paths given here.
"""

import dataclasses
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference

from deeplab_tf.config import PredictConfig
from deeplab_tf.data.beam import require_shared, run_pipeline, runner_flags
from deeplab_tf.documents.json_files import JSONError, parse_json
from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.files import AnyPath, growing, path, written
from deeplab_tf.inference.exported import open_runnable
from deeplab_tf.inference.files import ImageResult, SegmentationPipeline
from deeplab_tf.inference.inputs import require_apart, stems
from deeplab_tf.inference.runtime import runtime_predictor
from deeplab_tf.weights.hub import is_hub

_LEAST_BATCH, _MOST_BATCH = 8, 64  # files: a worker reads and writes beside the network within a batch
_RESULTS = "results"
_LINES = 10_000  # of a file of results, about


@dataclasses.dataclass(frozen=True)
class Job:
    """What each worker does.

    Attributes:
      checkpoint: anything that `load` takes.
      changes: of its ModelConfig.
      options: what is done with each image.
      output_dir: where the outputs go.
    """

    checkpoint: str
    changes: Mapping[str, object]
    options: PredictConfig
    output_dir: str


class _Worker:
    """An opened model, ready for batches of files."""

    def __init__(self, job: Job):
        loaded = open_runnable(job.checkpoint, job.changes)
        self._model = loaded.model  # which a predictor does not keep
        predictor = runtime_predictor(self._model, job.options.runtime, pixels=math.inf)
        self.line = SegmentationPipeline(predictor, loaded.card, job.output_dir, job.options)


class _Segmenting(ModelHandler[tuple[str, str], PredictionResult, _Worker]):
    """How RunInference opens and runs the network: (file, stem) -> what became of it, as JSON."""

    def __init__(self, job: Job):
        self._job = job

    def load_model(self) -> _Worker:
        return _Worker(self._job)

    def run_inference(self, batch: Sequence[tuple[str, str]], model: _Worker, inference_args: Any = None):
        files, names = zip(*batch, strict=True)
        for pair, result in zip(batch, model.line.results(files, names), strict=True):
            yield PredictionResult(pair, _as_json(result))

    def batch_elements_kwargs(self) -> Mapping[str, int]:
        return {"min_batch_size": _LEAST_BATCH, "max_batch_size": _MOST_BATCH}


def _as_json(result: ImageResult) -> str:
    values = {**dataclasses.asdict(result), "files": list(map(str, result.files))}
    return json.dumps({name: value for name, value in values.items() if value not in (None, (), [])})


def _pairs(plan: str) -> Iterator[tuple[str, str]]:
    with path(plan).open(encoding="utf-8") as lines:
        for line in lines:
            yield parse_json(line, tuple[str, str])


def _keyed(line: str, shards: int) -> tuple[int, str]:
    """Returns the line with the number of the file of results that it goes into."""
    return zlib.crc32(line.encode()) % shards, line


def _write_results(lines: tuple[int, Iterable[str]], work: str, shards: int):
    """Writes a file of results."""
    # Not by Beam's own writer of text, which takes a folder like run [2] for a pattern.
    number, results = lines
    name = f"{_RESULTS}-{number:05d}-of-{shards:05d}.jsonl"
    with written(path(work) / name, durable=False) as file, file.open("w", encoding="utf-8") as stream:
        stream.writelines(f"{line}\n" for line in results)


def _absolute(place: str) -> str:
    """Returns a path that means the same in a worker's folder."""
    return str(path(place).absolute())


def predict_with_beam(files: Sequence[str], job: Job, runner: str, beam_options: Iterable[str] = ()) -> dict[str, int]:
    """Segments files on a Beam runner, and waits for its end.

    Writes what `predict_files` writes, and results-*.jsonl: a line for each file, with its size, classes and shares, or
    its error.

    Args:
      files: from `expand_inputs`; millions are fine, since the pipeline reads their names from a file.
      job: what is done with each.
      runner: one of `data.beam.RUNNERS`.
      beam_options: the runner's own options, as on its command line.

    Returns:
      "images" and "failed": how many there were, and how many of them are faulty.

    Raises:
      DeepLabError: an unknown runner or option, a folder that is no folder, an output that would replace an input, a
        pipeline that fails.
    """
    flags = runner_flags(runner, list(beam_options))
    if "-" in files:
        raise DeepLabError("--input=-: a pipeline cannot read standard input; expected files")
    output = path(job.output_dir).absolute()
    require_shared(output, runner)
    require_apart(files, output, job.options)
    there = not is_hub(job.checkpoint) and path(job.checkpoint).exists()
    checkpoint = _absolute(job.checkpoint) if there else job.checkpoint
    job = dataclasses.replace(job, output_dir=str(output), checkpoint=checkpoint)
    output.mkdir(parents=True, exist_ok=True)
    results: list[str] = []
    shards = -(-len(files) // _LINES)
    with growing(output, results, flag="--output_dir") as work:
        plan = str(work / "plan.jsonl")
        with path(plan).open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps([_absolute(f), s]) + "\n" for f, s in zip(files, stems(files), strict=True))

        def build(pipeline: Any):
            pairs = pipeline | beam.Create([plan]) | "Files" >> beam.FlatMap(_pairs) | beam.Reshuffle()
            found = pairs | "Segment" >> RunInference(_Segmenting(job)) | "Result" >> beam.Map(lambda p: p.inference)
            keyed = found | "Key" >> beam.Map(_keyed, shards) | beam.GroupByKey()
            _ = keyed | "Write" >> beam.Map(_write_results, str(work), shards)

        run_pipeline(runner, flags, build)
        for file in _results(output):  # of an earlier run
            file.unlink()
        results += (file.name for file in _results(work))
    return _counted(output)


def _results(folder: AnyPath) -> list[AnyPath]:
    return sorted(folder.glob(f"{_RESULTS}-*.jsonl"))


def _result(line: str, file: AnyPath) -> dict[str, Any]:
    try:
        return parse_json(line, dict[str, Any])
    except JSONError as error:
        raise DamagedError(f"{file}: damaged ({error}); predict again") from None


def read_results(output_dir: str | os.PathLike) -> Iterator[dict]:
    """Yields the lines of results-*.jsonl. DamagedError: one of them is not what was written."""
    for file in _results(path(output_dir)):
        with file.open(encoding="utf-8") as lines:
            yield from (_result(line, file) for line in lines)


def _counted(output: AnyPath) -> dict[str, int]:
    failed = [("error" in result) for result in read_results(output)]
    return {"images": len(failed), "failed": sum(failed)}
