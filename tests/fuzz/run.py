"""Feeds damaged inputs of every kind to the readers, and keeps those that end in anything but an answer or one line.

  python tests/fuzz/run.py --count=100000 --seed=1 --keep=/tmp/found
  python tests/fuzz/run.py --count=500 --kinds=index,json

A child reads many inputs; it gets 10 seconds of processor time and a gigabyte of memory for each, and a fresh one takes
its place when it dies. The same seed gives the same inputs.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

FOLDER = pathlib.Path(__file__).parent
SECONDS = 10.0
_WALL = 120.0  # a machine that is busy gives little time
GOOD = ("read", "refused")


def _processor_seconds(process: int) -> float:
    try:
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Child:
    """A process that reads inputs."""

    def __init__(self, seeds: pathlib.Path):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(FOLDER / "child.py"), str(seeds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )
        outcome, text = self._answer(600.0, 600.0)
        if outcome != "ready":
            self.close()
            raise RuntimeError(f"the child did not start: {outcome} {text[-3000:]}")

    def _answer(self, seconds: float, wall: float) -> tuple[str, str]:
        assert self._process.stdout
        began, limit = _processor_seconds(self._process.pid), time.monotonic() + wall
        while not select.select([self._process.stdout], [], [], 0.2)[0]:
            if _processor_seconds(self._process.pid) - began > seconds or time.monotonic() > limit:
                return "hang", f"more than {seconds:.0f} s"
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            return "abort", f"status {self._process.returncode}: {self._errors.read()[-3000:].decode(errors='replace')}"
        outcome, text = json.loads(line)
        return outcome, text

    def read(self, kind: str, file: pathlib.Path) -> tuple[str, str]:
        """Returns what came of an input."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([kind, str(file)]).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer(SECONDS, _WALL)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def outcomes(
    count: int, seed: int, kinds: Sequence[str] = (), keep: pathlib.Path | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yields kind, outcome and text of damaged inputs.

    Args:
      count: of inputs, over all kinds.
      seed: of the generator.
      kinds: those to take; all by default.
      keep: a folder for the inputs that ended badly.
    """
    own = (str(FOLDER), str(FOLDER.parent), str(FOLDER.parent / "goldens"))
    sys.path[:0] = [path for path in own if path not in sys.path]
    import seeds as seed_files

    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="deeplab_tf-fuzz-") as folder:
        root = pathlib.Path(folder)
        made = seed_files.make(root / "seeds", kinds)
        chosen = draw.choices([kind for kind, *_ in made], k=count)
        child = Child(root / "seeds")
        try:
            for number, kind in enumerate(chosen):
                place = root / "inputs" / str(number % 16)
                shutil.rmtree(place, ignore_errors=True)
                name = draw.choice([seed for seed_kind, seed in made if seed_kind == kind])
                file = seed_files.damage(kind, name, place, draw)
                outcome, text = child.read(kind, file)
                if outcome not in GOOD and keep:
                    shutil.copytree(place, keep / f"{kind}-{seed}-{number}", dirs_exist_ok=True)
                    (keep / f"{kind}-{seed}-{number}.txt").write_text(f"{outcome}\n{text}\n")
                yield kind, outcome, text
                if outcome in ("hang", "abort"):
                    child.close()
                    child = Child(root / "seeds")
        finally:
            child.close()


def main() -> None:
    """Prints what came of the inputs; exit status 1 where something ended badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help="those to take, separated by commas (default: all)")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the inputs that ended badly")
    options = parser.parse_args()
    table: collections.Counter[tuple[str, str]] = collections.Counter()
    causes: collections.Counter[str] = collections.Counter()
    for kind, outcome, text in outcomes(
        options.count, options.seed, options.kinds.split(",") if options.kinds else (), options.keep
    ):
        table[kind, outcome] += 1
        if outcome not in GOOD:
            lines = [line for line in text.strip().splitlines() if "deeplab_tf" in line]
            cause = (
                f"{kind}: {outcome}: {(text.strip().splitlines() or [''])[-1][:200]} | {' '.join(lines[-1:]).strip()}"
            )
            causes[cause] += 1
            if causes[cause] == 1:
                print(cause, flush=True)
    for (kind, outcome), number in sorted(table.items()):
        print(f"{kind:14} {outcome:10} {number:7}")
    sys.exit(bool(causes))


if __name__ == "__main__":
    main()
