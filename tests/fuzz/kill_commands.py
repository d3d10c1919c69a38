"""Kills commands at random instants, repeats each, and compares what is there then with what one that lived left.

  python tests/fuzz/kill_commands.py --count=20 --seed=1

Each command runs in a fork of this process; `convert` in two at a time, of which one or both are killed.
"""

import argparse
import contextlib
import http.server
import os
import pathlib
import random
import shutil
import signal
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "goldens")]
NAME = "mobilenetv2_dm05_coco_voc_trainval"


def forked(work: Callable[[], object]) -> int:
    """Runs `work` in another process, and returns its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    with contextlib.suppress(BaseException):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            work()
            status = 0
        except SystemExit as error:
            status = int(error.code or 0)
    os._exit(status)


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def left(folder: pathlib.Path) -> set[str]:
    """Returns the names of the files and folders that are there, without those that are made to lock others."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock"}


def run(command: str, *flags: object) -> None:
    from deeplab_tf.tools import cli

    cli.main(["deeplab-tf", command, *map(str, flags)])


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def copyfile(self, source, outputfile) -> None:
        with contextlib.suppress(OSError):
            while part := source.read(1 << 16):
                outputfile.write(part)
                time.sleep(0.005)


def prepare(root: pathlib.Path) -> None:
    """Writes what the commands read: a model, an archive of the release, a data set, photographs. Made in a fork."""
    import numpy as np
    from networks import SMALL, lively

    from deeplab_tf.catalog.datasets import DATASETS
    from deeplab_tf.data.shapes import write_shapes
    from deeplab_tf.network.build import build_model
    from deeplab_tf.weights.model_directory import ModelCard, save_model
    from deeplab_tf.weights.tf1 import Receipt, write_tensors
    from deeplab_tf.weights.variables import variable_map
    from deeplab_tf.zoo import lookup

    save_model(root / "model", lively(SMALL), Receipt("tests", "0" * 64, {}, {}), card=ModelCard(SMALL))
    write_shapes(folder=root / "shapes", splits={"train": 30, "val": 10}, height=65, width=65)
    (root / "shapes" / "class_names.txt").write_text("\n".join(DATASETS["shapes"].class_names or ()))
    entry = lookup.CHECKPOINTS[NAME]
    values = {name: np.asarray(value) for name, value in variable_map(build_model(entry.config)).items()}
    write_tensors(root / "deeplabv3" / "model.ckpt-30000", values)
    with tarfile.open(root / str(entry.file), "w:gz") as archive:
        archive.add(root / "deeplabv3", arcname="deeplabv3")


def convert(root: pathlib.Path, place: pathlib.Path) -> None:
    from deeplab_tf.weights.loading import open_model

    os.environ["DEEPLAB_TF_CACHE"] = str(place)
    archive = next(root.glob("*.tar.gz"))
    with contextlib.suppress(FileExistsError):
        (place / archive.name).symlink_to(archive)
    open_model(NAME)


def export(root: pathlib.Path, place: pathlib.Path) -> None:
    target = place / "x.tflite"
    run("export", f"--checkpoint={root}/model", f"--export_path={target}", "--crop_size=65,65", "--num_images=1")


def build_data(root: pathlib.Path, place: pathlib.Path) -> None:
    run("build-data", "--dataset=folder", f"--root={root}/shapes", f"--output_dir={place}/records", "--num_processes=1")


def predict(root: pathlib.Path, place: pathlib.Path) -> None:
    pictures = root / "shapes" / "JPEGImages"
    run("predict", f"--checkpoint={root}/model", f"--output_dir={place}/out", "--runtime=tf", pictures)


def download(root: pathlib.Path, place: pathlib.Path) -> None:
    from deeplab_tf.zoo import download as downloads

    downloads.fetch((root / "address").read_text(), place / "x.tar.gz", sha256=None, most_bytes=1 << 30)


COMMANDS = {"convert": 2, "export": 1, "build_data": 1, "predict": 1, "download": 1}


def tried(command: str, root: pathlib.Path, count: int, draw: random.Random) -> list[str]:
    """Returns a line for each kill after which the repeat failed, or something stayed."""
    work, together = globals()[command], COMMANDS[command]
    place = root / "place"

    def begun() -> int:
        return forked(lambda: work(root, place))

    def alone() -> float:
        start = time.monotonic()
        assert ended(begun()) == 0, f"{command} fails without being killed"
        return time.monotonic() - start

    place.mkdir(exist_ok=True)
    seconds, whole, faults = alone(), left(place), []
    for number in range(count):
        shutil.rmtree(place)
        place.mkdir()
        processes = [begun() for _ in range(together)]
        time.sleep(draw.uniform(0.05, 1) * seconds * together)
        for process in processes if draw.randrange(2) else processes[:1]:
            os.kill(process, signal.SIGKILL)
        killed = [ended(process) for process in processes]
        there = left(place) - whole
        # What was whole at that instant may refuse to be written again.
        again = 0 if left(place) == whole else ended(begun())
        stray = left(place) ^ whole
        if again or stray:
            faults.append(
                f"{command} {number}: killed {killed}, left {sorted(there)[:4]}; again {again}, {sorted(stray)[:4]}"
            )
    shutil.rmtree(place)
    return faults


def main() -> None:
    """Prints what went wrong; exit status 1 where something did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    options = parser.parse_args()
    import deeplab_tf.tools.build_data  # noqa: F401 (once, before the forks)
    import deeplab_tf.tools.export_model
    import deeplab_tf.tools.predict  # noqa: F401

    bad = 0
    with tempfile.TemporaryDirectory(prefix="deeplab_tf-") as folder:
        root = pathlib.Path(folder)
        assert ended(forked(lambda: prepare(root))) == 0, "nothing could be prepared"
        handler = lambda *rest: Quiet(*rest, directory=str(root))  # noqa: E731
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (root / "address").write_text(f"http://127.0.0.1:{server.server_port}/{next(root.glob('*.tar.gz')).name}")
        for command in options.commands.split(","):
            faults = tried(command, root, options.count, random.Random(options.seed))
            bad += len(faults)
            print(f"{command}: {options.count} kills, {len(faults)} bad", *faults, sep="\n  ", flush=True)
        server.shutdown()
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
