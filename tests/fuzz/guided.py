"""Coverage-guided inputs to the readers that are Python, by atheris (pip install atheris); outside of CI.

  python tests/fuzz/guided.py --kind=index:small --seconds=600 --keep=/tmp/found

Atheris changes inputs towards lines that none has reached yet, and ends at the first that ends in anything but an
answer or one line: it lies in the folder of --keep then. The corpus is kept beside it, so that the next run goes on.
"""

import argparse
import importlib
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from types import ModuleType
from typing import Any

FOLDER = pathlib.Path(__file__).parent
_INSTRUMENTED = ("deeplab_tf", "PIL.TiffImagePlugin", "PIL.PngImagePlugin", "PIL.GifImagePlugin", "numpy.lib")
_LARGEST = 4096  # bytes of an input: the seeds are smaller


def _tables(content: bytes, file: pathlib.Path) -> None:
    """Writes an index of right checksums from entries: two bytes of lengths, then key and value, of each."""
    import tables

    pairs = []
    while len(content) > 1:
        key, value = content[0] % 32, content[1]
        pairs.append((content[2 : 2 + key], content[2 + key : 2 + key + value]))
        content = content[2 + key + value :]
    file.write_bytes(tables.table(pairs))


def _entries(file: pathlib.Path) -> bytes:
    """Returns the input of `_tables` that an index is."""
    import tables

    pairs = tables.pairs_of(file)
    short = [(key, value) for key, value in pairs if len(key) < 32 and len(value) < 256]
    return b"".join(bytes((len(key), len(value))) + key + value for key, value in short)


def _plainly(content: bytes, file: pathlib.Path) -> None:
    file.write_bytes(content)


def main() -> None:
    """Runs atheris until the time is over or an input ends badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", required=True, help="of input, as run.py lists them; KIND:NAME takes one seed of it")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=pathlib.Path, required=True, help="folder of the corpus, and of what is found")
    options = parser.parse_args()
    atheris: Any = importlib.import_module("atheris")  # is not installed with us

    sys.path[:0] = [str(FOLDER), str(FOLDER.parent), str(FOLDER.parent / "goldens")]
    import tensorflow as tf  # noqa: F401 (is not instrumented: it comes before)

    with atheris.instrument_imports(include=list(_INSTRUMENTED)):
        import seeds
        import targets

        from deeplab_tf.errors import DeepLabError

    root = pathlib.Path(tempfile.mkdtemp(prefix="deeplab_tf-guided-", dir="/dev/shm"))
    corpus = options.keep / "corpus" / options.kind.replace(":", "-")
    corpus.mkdir(parents=True, exist_ok=True)
    read = Reader(options.kind, root, corpus, seeds.make(root / "seeds", [options.kind.partition(":")[0]]), targets)

    def test(content: bytes) -> None:
        try:
            read(content)
        except DeepLabError as error:
            if "\n" in str(error).replace("\n  ", ""):
                raise AssertionError(f"several lines: {error}") from None

    arguments = [f"-max_total_time={options.seconds}", f"-max_len={_LARGEST}", f"-seed={options.seed}", "-timeout=10"]
    arguments += ["-rss_limit_mb=4000", f"-artifact_prefix={options.keep}/", "-print_final_stats=1", str(corpus)]
    atheris.Setup([sys.argv[0], *arguments], test)
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(root, ignore_errors=True)


class Reader:
    """Reads inputs of a kind, as targets.py does, each in the place of one file of a copy of a seed.

    Args:
      kind: of run.py; KIND:NAME is one seed of it.
      root: a folder for the copies.
      corpus: the folder that gets the files of the seeds.
      made: kind and place of the seeds.
      targets: the module.
    """

    def __init__(self, kind: str, root: pathlib.Path, corpus: pathlib.Path, made: list, targets: ModuleType) -> None:
        kind, _, name = kind.partition(":")
        self._read = targets.READERS[kind]
        chosen = [seed for _, seed in made if not name or seed.name == name]
        self._here = root / "here"
        self._write: Callable[[bytes, pathlib.Path], object] = _tables if kind == "index" else _plainly
        for number, seed in enumerate(chosen):
            for file in (file for file in ([seed] if seed.is_file() else sorted(seed.rglob("*"))) if file.is_file()):
                content = _entries(file) if kind == "index" and file.suffix == ".index" else file.read_bytes()
                if len(content) <= _LARGEST and (kind != "index" or file.suffix == ".index"):
                    (corpus / f"seed-{number}-{file.name}").write_bytes(content)
        self._seed = chosen[0]
        self._file = ""
        if self._seed.is_dir():
            found = [file for file in sorted(self._seed.rglob("*")) if file.is_file()]
            texts = [file for file in found if file.suffix in (".index", ".json", ".txt", ".jsonl")]
            self._file = (texts or found)[0].relative_to(self._seed).as_posix()

    def __call__(self, content: bytes) -> None:
        """Reads one input."""
        shutil.rmtree(self._here, ignore_errors=True)
        self._here.mkdir()
        place = self._here / self._seed.name
        (shutil.copytree if self._seed.is_dir() else shutil.copyfile)(self._seed, place)
        self._write(content, place / self._file if self._file else place)
        self._read(place)


if __name__ == "__main__":
    main()
