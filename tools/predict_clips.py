"""Clips that `predict` segments: which of its inputs they are, its progress and its lines."""

import dataclasses
import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from deeplab_tf.config import PredictConfig
from deeplab_tf.errors import DeepLabError, OptionError
from deeplab_tf.tools import options

if TYPE_CHECKING:
    from deeplab_tf.inference.clips import ClipModel, ClipResult
    from deeplab_tf.inference.exported import Runnable
    from deeplab_tf.inference.video import ClipFacts

_USES: tuple[options.Use[Sequence[str]], ...] = (
    options.Use(("every", "stabilize"), "a clip as --input, or a folder of its frames with --fps", bool),
)
_FPS: tuple[options.Use[Sequence[str]], ...] = (
    options.Use(("fps",), "a folder of the frames of a clip as --input", bool),
)


def split_inputs(values: flags.FlagValues, choice: PredictConfig) -> tuple[list[str], list[str]]:
    """Returns the inputs that are clips, and the others; to be called when TensorFlow has started.

    Raises:
      DeepLabError: a flag for clips is given without one, or --beam_runner with one.
    """
    from deeplab_tf.files import is_address, path
    from deeplab_tf.inference.inputs import matching
    from deeplab_tf.inference.video import is_clip

    of_frames = choice.fps is not None
    clips: list[str] = []
    others: list[str] = []
    for item in values.input or []:
        found = [item]
        if item != "-" and not is_address(item) and not path(item).exists():
            # A pattern may find both kinds.
            found = matching(item) or found
        for file in found:
            (clips if is_clip(file, of_frames=of_frames) else others).append(file)
    clips = list(dict.fromkeys(clips))
    options.require_use(values, _USES, clips)
    folders = [clip for clip in clips if not is_address(clip) and path(clip).is_dir()]
    options.require_use(values, _FPS, folders)
    if clips and values.beam_runner:
        raise DeepLabError(f"--beam_runner takes pictures, and {clips[0]} is a clip; leave one of them out")
    return clips, others


def clip_choice(values: flags.FlagValues, choice: PredictConfig) -> PredictConfig:
    """Returns the options for clips, whose video is all that is written where --save is not given."""
    return choice if values["save"].value is not None else dataclasses.replace(choice, save=("overlay",))


def _identity(loaded: "Runnable") -> str:
    from deeplab_tf.inference.exported import OpenedExport
    from deeplab_tf.inference.weights_seen import weight_array

    if isinstance(loaded, OpenedExport):
        return loaded.export.sha256
    checksum = 0
    for weight in loaded.model.weights:
        checksum = zlib.crc32(weight_array(weight).tobytes(), checksum)
    return f"{checksum:08x}"


def _line(result: "ClipResult", whole: float) -> str:
    height, width = result.size
    new = result.frames - result.earlier
    earlier = f", {result.earlier} of them by an earlier run" if result.earlier else ""
    rate = f"{new} in {whole:.1f} s ({new / whole:.1f} frames/s, {100 * result.seconds / whole:.0f} % in the network)"
    shares = ", ".join(f"{name} {100 * share:.1f} %" for _, name, share in result.shares)
    lines = [f"{result.name}  {width} x {height}  {result.frames} frames{earlier}; {rate}", f"  {shares}"]
    lines += [f"  {result.flicker.describe()}"] if result.flicker is not None else []
    lines += [f"  wrote {file}" for file in result.files]
    return "\n".join([*lines, *(f"  Note: {note}" for note in result.notes)])


def _segmented(model: "ClipModel", source: str, outputs: tuple[str, str], choice: PredictConfig) -> bool:
    """Segments a clip and prints its line; returns whether the user has stopped it."""
    import rich.console
    import rich.progress

    from deeplab_tf.inference.clips import segment_clip

    console = rich.console.Console(soft_wrap=True, highlight=False, markup=False)
    columns = (
        *rich.progress.Progress.get_default_columns(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[rate]}"),
    )
    start = time.perf_counter()
    with rich.progress.Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("Segmenting", total=None, rate="")
        begun: list[tuple[int, float]] = []

        def told(facts: "ClipFacts", done: int) -> None:
            now = time.perf_counter()
            begun[:] = begun or [(done, now)]
            rate = f"{(done - begun[0][0]) / (now - begun[0][1]):.1f} frames/s" if now > begun[0][1] else ""
            total = None if facts.frames is None or facts.live else -(-facts.frames // choice.every)
            progress.update(task, total=total, completed=done, rate=rate)

        result = segment_clip(model, source, outputs, choice, told)
    console.print(_line(result, time.perf_counter() - start))
    return result.stopped


def _caught(model: "ClipModel", source: str, outputs: tuple[str, str], choice: PredictConfig) -> str | None:
    """Segments a clip; returns the error where the clip is at fault."""
    from deeplab_tf.inference.video import shown

    try:
        stopped = _segmented(model, source, outputs, choice)
    except KeyboardInterrupt:
        print(f"{shown(source)}: stopped; the same command goes on where it was")
        raise
    except OptionError:  # the fault is not the clip's
        raise
    except DeepLabError as error:
        print(f"FAILED  {error}")
        return str(error)
    if stopped:
        raise KeyboardInterrupt
    return None


def predict_clips(
    loaded: "Runnable", clips: Sequence[str], values: flags.FlagValues, choice: PredictConfig
) -> list[str]:
    """Segments clips and prints what became of each; returns the errors.

    Raises:
      DeepLabError: the options do not fit clips.
      KeyboardInterrupt: the user has stopped it; what is done of a clip is kept.
    """
    from deeplab_tf.inference.clips import ClipModel, clip_stems, require_clip_choices
    from deeplab_tf.inference.measured import Surroundings
    from deeplab_tf.inference.runtime import runtime_predictor

    if not clips:
        return []
    choice = clip_choice(values, choice)
    # A clip is frames enough for the choice of the fastest to pay.
    pixels = 1000 * choice.longest_side**2
    surroundings = Surroundings(print, options.silenced)
    predictor = runtime_predictor(loaded.model, choice.runtime, pixels=pixels, surroundings=surroundings)
    with options.silenced():
        predictor.prepare()
    model = ClipModel(predictor, loaded.card, _identity(loaded))
    require_clip_choices(model, choice)
    results = [
        _caught(model, source, (values.output_dir, stem), choice)
        for source, stem in zip(clips, clip_stems(clips), strict=True)
    ]
    return [error for error in results if error is not None]
