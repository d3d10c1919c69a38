r"""Segments images: files, folders, globs, or - for standard input; without --input asks for names on the terminal.

  deeplab-tf predict --checkpoint=models/xception65 --input=photo.jpg --output_dir=out
  deeplab-tf predict --checkpoint=xception65_coco_voc_trainaug --output_stride=8 --input=photos \
    --eval_scales=0.5,0.75,1.0,1.25,1.5,1.75 --add_flipped_images
  deeplab-tf predict --checkpoint=models/v2 --input=photos --crf
  deeplab-tf predict --checkpoint=models/xception65 --input=photos --runtime=tflite

Images that one machine cannot segment, Apache Beam can (pip install 'deeplab_tf[beam]'); the files are the same:

  deeplab-tf predict --checkpoint=/net/model --input="/net/photos/**/*.jpg" --output_dir=/net/out --save=raw \
    --beam_runner=FlinkRunner --beam_options="--flink_master=host:8081 --parallelism=64"

Clips (pip install 'deeplab_tf[video]') become <stem>_overlay.mp4; see docs/how-to/predict.md:

  deeplab-tf predict --checkpoint=models/xception65 --input=clip.mp4 --output_dir=out --save=overlay,npz --every=2

Writes <stem>_mask.png (colours), <stem>_overlay.jpg (with a legend), <stem>_raw.png (class indices), with --save=cutout
<stem>_cutout.png (the picture without its background, class 0) and with --save=probabilities <stem>_probabilities.npy,
all at the picture's own size.
"""

import dataclasses
import io
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags

from deeplab_tf.config import ModelConfig, PredictConfig
from deeplab_tf.config.crf import CrfConfig
from deeplab_tf.config.inference import SCALES_SEEN
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import help_pages, options, predict_clips

if TYPE_CHECKING:
    from deeplab_tf.inference.exported import Runnable
    from deeplab_tf.inference.files import ImageResult


_CRF = tuple(field.name for field in dataclasses.fields(CrfConfig) if field.name != "crf")
_USES: tuple[options.Use[PredictConfig], ...] = (
    options.Use(_CRF, "--crf", lambda choice: choice.crf),
    options.Use(("longest_side",), "--resize=longest", lambda choice: choice.resize != "none"),
)


_FIRST = (
    "checkpoint",
    "input",
    "output_dir",
    "save",
    "resize",
    "longest_side",
    "output_stride",
    "eval_scales",
    "add_flipped_images",
    "runtime",
    "crf",
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    options.define_path(values, "checkpoint", None, options.RUNNABLE_HELP)
    text = (
        "image file, folder, glob, or - for standard input; or a clip: a video file, an animated GIF, https://..., "
        "rtsp://..., camera:0, a folder of frames with --fps; several are allowed"
    )
    options.define_paths(values, "input", None, text, addresses=True)
    options.define_path(values, "output_dir", "output", "folder to write (default: output)")
    options.define_beam(values, "segment", example="--flink_master=host:8081 --parallelism=64")
    options.define_flags(values, PredictConfig)
    options.define_flags(values, ModelConfig)
    help_pages.put_first(values, _FIRST)


def _resize_line(choice: PredictConfig, asked: str) -> str:
    """Returns the resize rule as it is printed: that of `choice`, and whether auto has chosen it."""
    side = choice.longest_side
    rules = {
        "trained": f"longest side from {-(-side // SCALES_SEEN)} to {side * SCALES_SEEN} kept, as in evaluation, any "
        f"other brought to {side} (trained at {side})",
        "longest": f"longest side brought to {side}",
        "letterbox": f"into a square of {side}",
        "none": "kept",
    }
    return f"{asked}: {rules[choice.resize]}"


def _shares(result: "ImageResult") -> str:
    return ", ".join(f"{name} {100 * share:.1f} %" for _, name, share in result.shares)


def _line(result: "ImageResult") -> str:
    if result.error:
        return f"FAILED  {result.error}"
    height, width = result.size
    notes = "".join(f"\n  Note: {note}" for note in result.notes)
    return f"{result.name}  {width} x {height}  {1000 * result.seconds:.0f} ms  {_shares(result)}{notes}"


def _typed_names() -> Iterator[str]:
    """Yields the file names that the user types, until an empty line or the end of input."""
    while True:
        try:
            name = input("Input image filename: ").strip().strip("'\"")
        except EOFError:
            return
        if not name:
            return
        yield name


def _predict(loaded: "Runnable", files: Sequence[str], values: flags.FlagValues, choice: PredictConfig) -> list[str]:
    """Segments `files` and prints a line for each; returns the errors."""
    import rich.console
    import rich.progress

    from deeplab_tf.inference.files import expected_pixels, predict_files
    from deeplab_tf.inference.measured import Surroundings
    from deeplab_tf.inference.runtime import runtime_predictor

    console = rich.console.Console(soft_wrap=True, highlight=False, markup=False)
    surroundings = Surroundings(console.print, options.silenced)
    pixels = expected_pixels(files, choice)
    predictor = runtime_predictor(loaded.model, choice.runtime, pixels=pixels, surroundings=surroundings)
    with options.silenced():
        predictor.prepare()
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn())
    hidden = not console.is_terminal or len(files) < 2
    errors = []
    seconds = 0.0
    start = time.perf_counter()
    with rich.progress.Progress(*columns, console=console, disable=hidden, transient=True) as progress:
        results = predict_files(loaded.model, loaded.card, files, values.output_dir, choice, predictor=predictor)
        for result in progress.track(results, total=len(files), description="Segmenting"):
            console.print(_line(result))
            seconds += result.seconds
            if result.error:
                errors.append(result.error)
    if len(files) > 1:
        whole = time.perf_counter() - start
        console.print(f"{len(files)} images in {whole:.1f} s, {100 * seconds / whole:.0f} % of it in the network")
    return errors


def _predict_with_beam(files: Sequence[str], changes: dict, values: flags.FlagValues, choice: PredictConfig) -> int:
    """Segments `files` as a pipeline of Apache Beam and prints a summary; returns 1 if an image failed."""
    from deeplab_tf.inference.beam import Job, predict_with_beam, read_results

    job = Job(values.checkpoint, changes, choice, values.output_dir)
    counts = predict_with_beam(files, job, values.beam_runner, values.beam_options)
    print(f"{counts['images']} images; sizes, classes and errors: {values.output_dir}/results-*.jsonl")
    if counts["failed"]:
        errors = (result["error"] for result in read_results(values.output_dir) if "error" in result)
        print(
            f"{counts['failed']} images failed, for instance:",
            *itertools.islice(errors, 10),
            sep="\n  ",
            file=sys.stderr,
        )
    return 1 if counts["failed"] else 0


def main(values: flags.FlagValues) -> int:
    """Segments the images and prints a line for each; returns 1 if an image failed."""
    options.require(values, "checkpoint")
    if not values.input and not sys.stdin.isatty():
        raise DeepLabError("--input is missing; expected image files, a folder, a glob, or - for standard input")
    if values.beam_options and not values.beam_runner:
        raise DeepLabError("--beam_options belongs to --beam_runner, which is not given")
    if values.beam_runner and not values.input:
        raise DeepLabError("--input is missing; --beam_runner expects image files, folders or globs")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file may not be valid text
    choice = PredictConfig(**options.given(values, PredictConfig))
    options.require_use(values, _USES, choice)
    changes = options.given(values, ModelConfig)
    options.require_writable(values, "output_dir")
    options.start_tensorflow()
    options.tell_exactness(choice.tf32)
    if values.beam_runner:
        from deeplab_tf.data.beam import runner_flags

        runner_flags(values.beam_runner, values.beam_options)
    from deeplab_tf.inference.exported import open_runnable, settled_options
    from deeplab_tf.inference.inputs import expand_inputs

    clips, pictures = predict_clips.split_inputs(values, choice)
    files = expand_inputs(pictures)
    loaded = open_runnable(values.checkpoint, changes)
    asked, choice = choice, settled_options(loaded, choice, options.given(values, PredictConfig))
    rows = {
        "checkpoint": values.checkpoint,
        **loaded.card.config.to_json(),
        "num_classes": loaded.card.config.num_classes,
        "output_stride": loaded.card.config.output_stride,
        "dataset": loaded.card.dataset,
        "eval_scales": choice.eval_scales,
        "resize": _resize_line(choice, asked.resize),
        "add_flipped_images": choice.add_flipped_images,
        "runtime": choice.runtime,
        "output_dir": values.output_dir,
        **{f"crf_{name}": value for name, value in (choice.crf_parameters or {}).items()},
    }
    print(f"Configuration\n{options.table(rows)}")
    for note in loaded.notes:
        print(f"Note: {note}")
    if values.beam_runner:
        return _predict_with_beam(files, changes, values, choice)
    if values.input:
        failed = _predict(loaded, files, values, choice) if files else []
        failed += predict_clips.predict_clips(loaded, clips, values, choice)
    else:
        failed = [error for name in _typed_names() for error in _predict_typed(name, loaded, values, choice)]
    if failed:
        print(
            f"{len(failed)} of {len(files) + len(clips) or 'the'} {'inputs' if clips else 'images'} failed:",
            *failed,
            sep="\n  ",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _predict_typed(name: str, loaded: "Runnable", values: flags.FlagValues, choice: PredictConfig) -> list[str]:
    """Segments the images that the user typed, a file, a folder or a glob; returns the errors."""
    from deeplab_tf.inference.inputs import expand_inputs

    try:
        return _predict(loaded, expand_inputs([name]), values, choice)
    except DeepLabError as error:
        print(error)
        return [str(error)]


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv, rest_is="input")


if __name__ == "__main__":
    run()
