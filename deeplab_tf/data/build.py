"""Building TFRecords from pairs of files, in several processes: all of it or nothing, and every fault at once."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import json
import multiprocessing
import os
import pathlib
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from deeplab_tf.data import catalog, records
from deeplab_tf.data.pairs import LabelRules, Packed, Pair, binary_mask_fault, pack, pack_all
from deeplab_tf.errors import DeepLabError

_CHUNK = 8  # pairs that a process is given at a time
_AHEAD = 3  # chunks a process may be ahead of the writer: what bounds the memory


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """How records are built: shards a split, processes (1: this one alone), (old, new) pairs of labels to rename."""

    shards: int = 4
    processes: int = 1
    label_map: tuple[tuple[int, int], ...] = ()


def build_records(
    splits: Mapping[str, Sequence[Pair]],
    facts: catalog.Dataset,
    output_dir: str | os.PathLike,
    options: BuildOptions | None = None,
    *,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, np.ndarray]:
    """Writes <output_dir>/<split>-0000i-of-0000n.tfrecord and dataset.json, and the data set's facts.

    The files grow in a sibling folder that takes the name when it is complete. `advance` is called after each pair.
    Returns how many pixels of each split have each label, int64 [256].

    Raises:
      DeepLabError: some files are faulty (all are listed, one a line, and nothing is written), `output_dir` is there
        and not empty, or there is nothing to build.
    """
    options = options or BuildOptions()
    folder = pathlib.Path(output_dir)
    if not splits or not all(splits.values()):
        empty = ", ".join(split for split, pairs in splits.items() if not pairs) or "splits"
        raise DeepLabError(f"no images found for {empty}")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DeepLabError(f"output_dir={folder} is there and not an empty folder; name a new one, or remove it first")
    rules = LabelRules(facts.num_classes, facts.ignore_label, facts.palette, options.label_map)
    with _growing(folder) as growing, _packer(rules, options.processes) as packed:
        counts, faults = {}, []
        for split, pairs in splits.items():
            shards = _Shards(growing, split, len(pairs), options.shards)
            counts[split] = _write_split(shards, packed(pairs), faults, advance)
        fault = binary_mask_fault(sum(counts.values()), rules)
        faults += [fault] if fault and not faults else []
        if faults:
            raise DeepLabError(f"{len(faults)} faults, nothing was written:\n" + "\n".join(f"  {f}" for f in faults))
        _write_facts(growing / catalog.DATASET_FILE, facts, {split: len(pairs) for split, pairs in splits.items()})
    return counts


@contextlib.contextmanager
def _growing(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a folder to fill, which takes the place of `folder` if all goes well and vanishes if not."""
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        growing = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    except OSError as error:
        raise DeepLabError(f"output_dir={folder}: cannot be written ({error.strerror}); choose another") from None
    try:
        yield growing
        growing.chmod(0o755)  # mkdtemp makes it private
        os.replace(growing, folder)
    except (tf.errors.OpError, OSError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise DeepLabError(f"output_dir={folder}: cannot be written ({reason}); nothing is left of it") from None
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def _write_split(
    shards: "_Shards", results: Iterable[Packed | list[str]], faults: list[str], advance: Callable[[], object]
) -> np.ndarray:
    """Writes what was packed, and adds to `faults`; after the first fault nothing more is written."""
    counts = np.zeros(256, np.int64)
    with contextlib.closing(shards):
        for number, result in enumerate(results):
            if isinstance(result, list):
                faults += result
            else:
                counts += result.counts
                if not faults:
                    shards.write(number, example_of(result))
            advance()
    return counts


def example_of(packed: Packed) -> bytes:
    """Returns the serialized example of a packed pair."""
    return records.make_example(
        packed.image, packed.label, filename=packed.filename, height=packed.height, width=packed.width
    )


class _Shards:
    """The files of a split, written one after the other."""

    def __init__(self, folder: pathlib.Path, split: str, count: int, shards: int):
        self._ranges = records.shard_ranges(count, shards)
        self._files = [str(folder / records.shard_name(split, i, shards)) for i in range(shards)]
        self._next, self._writer = 0, None
        for file in self._files:
            pathlib.Path(file).touch()  # a shard without records is a file all the same

    def write(self, number: int, example: bytes):
        """Writes the example of item `number`; numbers rise."""
        while self._next == 0 or number not in self._ranges[self._next - 1]:
            self.close()
            self._writer = tf.io.TFRecordWriter(self._files[self._next])
            self._next += 1
        self._writer.write(example)

    def close(self):
        """Ends the file that is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@contextlib.contextmanager
def _packer(rules: LabelRules, processes: int) -> Iterator[Callable]:
    """Gives a function from pairs to what is packed of them, in order."""
    if processes <= 1:
        yield lambda pairs: (pack(pair, rules) for pair in pairs)
        return
    # TensorFlow runs threads, which a forked process would not have.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:

        def packed(pairs: Sequence[Pair]) -> Iterator[Packed | list[str]]:
            waiting = deque()
            for first in range(0, len(pairs), _CHUNK):
                waiting.append(pool.submit(pack_all, pairs[first : first + _CHUNK], rules))
                if len(waiting) > _AHEAD * processes:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

        try:
            yield packed
        except concurrent.futures.process.BrokenProcessPool:
            raise DeepLabError("a process died (out of memory?); --num_processes=1 builds in this one") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_facts(file: pathlib.Path, facts: catalog.Dataset, splits: Mapping[str, int]):
    """Writes the dataset.json that catalog.read_dataset reads."""
    values = {"name": facts.name, "class_names": facts.class_names, "palette": facts.palette}
    values |= {"ignore_label": facts.ignore_label, "splits": splits}
    values |= {key: getattr(facts, key) for key in ("homepage", "terms") if getattr(facts, key)}
    file.write_text(json.dumps(values) + "\n", encoding="utf-8")
