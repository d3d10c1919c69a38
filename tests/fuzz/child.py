"""Reads damaged inputs as the commands do, one after the other, and says what came of each.

A child of `run.py`: a line of standard input is [kind, file], the answer is a line [outcome, text] on standard output.
The memory it may have is limited to what it has when the seeds have been read, and one gigabyte.
"""

import faulthandler
import json
import os
import pathlib
import resource
import shutil
import sys
import tempfile
import traceback

FOLDER = pathlib.Path(__file__).parent
ROOM = 1 << 30


def _outcome(read, path: pathlib.Path) -> tuple[str, str]:
    from deeplab_tf.errors import DeepLabError

    with tempfile.TemporaryDirectory(prefix="deeplab_tf-fuzz-") as scratch:
        here = pathlib.Path(scratch) / path.name
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, here)
        try:
            read(here)
        except DeepLabError as error:
            text = str(error)
            return ("refused", text) if "\n" not in text.replace("\n  ", "") else ("several lines", text)
        except (Exception, SystemExit):
            return "traceback", traceback.format_exc()
    return "read", ""


def main() -> None:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    faulthandler.enable()
    sys.path[:0] = [str(FOLDER), str(FOLDER.parent), str(FOLDER.parent / "goldens")]
    import targets

    for kind, seed in targets.seeds_in(pathlib.Path(sys.argv[1])):
        outcome, text = _outcome(targets.READERS[kind], seed)
        if outcome not in ("read", "refused"):  # a photograph is no label, and a label no photograph
            answers.write(json.dumps(["seed", f"{kind}: {seed.name}: {outcome}: {text}"]) + "\n")
            answers.flush()
            return
    status = pathlib.Path("/proc/self/status").read_text()
    now = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmSize"))) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, now + ROOM))
    answers.write('["ready", ""]\n')
    answers.flush()
    for line in sys.stdin:
        kind, file = json.loads(line)
        answers.write(json.dumps(_outcome(targets.READERS[kind], pathlib.Path(file))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
