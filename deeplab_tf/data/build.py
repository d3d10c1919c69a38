"""The builder of TFRecords from pairs of files: writes everything or nothing, and reports every fault at once.

Files and records are the same to the last byte whether one process writes them, several, or Apache Beam (data/beam.py).
"""

import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.catalog import datasets
from deeplab_tf.data import records
from deeplab_tf.data.faults import Fault
from deeplab_tf.data.label_survey import LabelSurvey, fault_report
from deeplab_tf.data.masks import LabelRules, binary_mask_fault
from deeplab_tf.data.packing import Packed, PackingRules, pack, pack_all
from deeplab_tf.data.pairs import Pair
from deeplab_tf.data.photograph_facts import find_image_facts
from deeplab_tf.data.photographs import PhotographOptions
from deeplab_tf.errors import DeepLabError
from deeplab_tf.filesystems.remote_errors import os_errors

_CHUNK = 8  # pairs in one task of a process
_AHEAD = 3  # chunks that a process may be ahead of the writer, which bounds the memory


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """How records are built.

    Attributes:
      shards: files of each split.
      processes: worker processes; with 1 the calling process does the work.
      label_map: (old, new) pairs of labels to rename.
      threshold: of two classes, grey levels from this one on (1..255) are class 1, all below it class 0.
      tell: called with each line that a user should know about labels and photographs, once they are built.
      photographs: what the user says of the photographs.
    """

    shards: int = 4
    processes: int = 1
    label_map: tuple[tuple[int, int], ...] = ()
    threshold: int | None = None
    tell: Callable[[str], object] = lambda _: None
    photographs: PhotographOptions = PhotographOptions()


@dataclasses.dataclass(frozen=True)
class PlannedShard:
    """One file to write: its path, the split it belongs to, and its pairs in order."""

    file: str
    split: str
    pairs: Sequence[Pair]


@dataclasses.dataclass(frozen=True)
class Written:
    """The result of writing a shard: the pixels of each label, the faults, and what the labels looked like."""

    counts: np.ndarray  # int64 [256]
    faults: list[Fault]
    survey: LabelSurvey


# Writes all shards, and yields their results in order.
Writer = Callable[[Sequence[PlannedShard], PackingRules], Iterable[Written]]


def build_records(
    splits: Mapping[str, Sequence[Pair]],
    facts: datasets.Dataset,
    output_dir: str | os.PathLike,
    options: BuildOptions | None = None,
    *,
    advance: Callable[[], object] | None = None,
    writer: Writer | None = None,
) -> dict[str, np.ndarray]:
    """Writes <output_dir>/<split>-0000i-of-0000n.tfrecord and dataset.json.

    The files grow in a sibling folder that takes the name `output_dir` when it is complete.

    Args:
      splits: the pairs of each split.
      facts: the data set's classes, palette and ignore label.
      output_dir: the folder to write, which does not exist or is empty.
      options: shards, processes and label map.
      advance: called after each pair, unless a `writer` is given.
      writer: writes the shards in place of this machine's processes.

    Returns:
      For each split the pixels of each label, int64 [256].

    Raises:
      DeepLabError: files are faulty (all are counted, the first of each kind listed, and nothing is written),
        `output_dir` exists and is not empty, or there is nothing to build.
    """
    options = options or BuildOptions()
    labels = _rules(facts, options)
    if empty := ", ".join(split for split, pairs in splits.items() if not pairs) or ("" if splits else "splits"):
        raise DeepLabError(f"no images found for {empty}")
    if files.is_taken(output_dir):
        raise DeepLabError(
            f"output_dir={output_dir} is there and not an empty folder; name a new one, or remove it first"
        )
    image = find_image_facts(trained_on(splits), options.photographs, facts.image)
    rules = PackingRules(labels, options.photographs.rules(image))
    writer = writer or _local_writer(options.processes, advance)
    cure = "nothing is left of it; choose another"
    with files.growing(output_dir, flag="output_dir", cure=cure) as growing:
        counts = {split: np.zeros(256, np.int64) for split in splits}
        faults: list[Fault] = []
        survey = LabelSurvey()
        parts = (_shards(str(growing), split, pairs, options.shards) for split, pairs in splits.items())
        shards = list(itertools.chain.from_iterable(parts))
        for shard, written in zip(shards, writer(shards, rules), strict=True):
            counts[shard.split] += written.counts
            faults += written.faults
            survey.update(written.survey)
        total = sum(counts.values(), np.zeros(256, np.int64))
        if not faults and (fault := binary_mask_fault(total, labels)):
            faults.append(Fault(fault))
        if faults:
            raise DeepLabError(fault_report(faults, total, facts, labels))
        built = _built_facts(dataclasses.replace(facts, image=image), splits, options)
        (growing / datasets.DATASET_FILE).write_text(datasets.dataset_json(built), encoding="utf-8")
    for note in survey.notes(image):
        options.tell(note)
    return counts


def trained_on(splits: Mapping[str, Sequence[Pair]]) -> Sequence[Pair]:
    """Returns the pairs of the first split whose name begins with train, else of the first."""
    return next((pairs for split, pairs in splits.items() if split.startswith("train")), next(iter(splits.values())))


def _rules(facts: datasets.Dataset, options: BuildOptions) -> LabelRules:
    threshold = options.threshold
    if threshold is not None:
        if facts.num_classes != 2:
            raise DeepLabError(f"threshold={threshold}: makes two classes, but {facts.name} has {facts.num_classes}")
        if not 0 < threshold <= 255:
            raise DeepLabError(f"threshold={threshold}: expected a grey level of 1..255")
        if options.label_map:
            raise DeepLabError(f"threshold={threshold}: not beside label_map; all grey levels become 0 or 1")
    return LabelRules(facts.num_classes, facts.ignore_label, facts.palette, options.label_map, threshold)


def _built_facts(
    facts: datasets.Dataset, splits: Mapping[str, Sequence[Pair]], options: BuildOptions
) -> datasets.Dataset:
    """Returns the facts to write beside the records."""
    return dataclasses.replace(
        facts,
        splits={split: len(pairs) for split, pairs in splits.items()},
        label_map=options.label_map,
        unlabelled=tuple(split for split, pairs in splits.items() if all(pair.label is None for pair in pairs)),
        built={**facts.built, **({} if options.threshold is None else {"threshold": options.threshold})},
    )


def _shards(folder: str, split: str, pairs: Sequence[Pair], shards: int) -> Iterator[PlannedShard]:
    for number, part in enumerate(records.shard_ranges(len(pairs), shards)):
        file = os.path.join(folder, records.shard_name(split, number, shards))
        yield PlannedShard(file, split, pairs[part.start : part.stop])


def write_shard(file: str, results: Iterable[Packed | list[Fault]]) -> Written:
    """Writes the packed pairs to a file, up to the first fault, and returns all counts, faults and the survey.

    A shard without pairs becomes a file without records.
    """
    counts = np.zeros(256, np.int64)
    faults: list[Fault] = []
    survey = LabelSurvey()
    with os_errors(), tf.io.TFRecordWriter(file) as writer:
        for result in results:
            if isinstance(result, list):
                faults += result
                continue
            counts += result.counts
            survey.add(result)
            if not faults:
                writer.write(example_of(result))
    return Written(counts, faults, survey)


def example_of(packed: Packed) -> bytes:
    """Returns the serialized example of a packed pair."""
    return records.make_example(
        packed.image,
        packed.label,
        filename=packed.filename,
        height=packed.height,
        width=packed.width,
        channels=packed.channels,
    )


def _local_writer(processes: int, advance: Callable[[], object] | None) -> Writer:
    """Returns the writer that works on this machine, in `processes` processes."""

    def write(shards: Sequence[PlannedShard], rules: PackingRules) -> Iterator[Written]:
        def counted(results: Iterable[Packed | list[Fault]]) -> Iterator[Packed | list[Fault]]:
            for result in results:
                if advance:
                    advance()
                yield result

        # ram:// is the memory of this process: another would find nothing there.
        here = any(_in_memory(pair) for shard in shards for pair in shard.pairs)
        with _packer(rules, 1 if here else processes) as pack_pairs:
            # One stream over all shards, so that no process waits for the end of a shard.
            results = counted(pack_pairs(pair for shard in shards for pair in shard.pairs))
            for shard in shards:
                yield write_shard(shard.file, itertools.islice(results, len(shard.pairs)))

    return write


def _in_memory(pair: Pair) -> bool:
    return any(place and place.startswith("ram://") for place in (pair.image, pair.label))


@contextlib.contextmanager
def _packer(
    rules: PackingRules, processes: int
) -> Iterator[Callable[[Iterator[Pair]], Iterator[Packed | list[Fault]]]]:
    """Yields a function from pairs to their packed contents or faults, in the same order."""
    if processes <= 1:
        yield lambda pairs: (pack(pair, rules.labels, rules.photographs) for pair in pairs)
        return
    # A forked process would lack the threads of TensorFlow and hang waiting for them.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:

        def pack_pairs(pairs: Iterator[Pair]) -> Iterator[Packed | list[Fault]]:
            waiting: deque[concurrent.futures.Future[list[Packed | list[Fault]]]] = deque()
            while chunk := list(itertools.islice(pairs, _CHUNK)):
                waiting.append(pool.submit(pack_all, chunk, rules.labels, rules.photographs))
                if len(waiting) > _AHEAD * processes:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

        try:
            yield pack_pairs
        except concurrent.futures.process.BrokenProcessPool:
            raise DeepLabError("a process died (out of memory?); --num_processes=1 builds in this one") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
