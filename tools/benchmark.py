"""Measures this machine: prediction, serving, conversion, --help, the input pipeline, training, the CRF, the scores.

  deeplab-tf benchmark --what=inference --checkpoints=models/xception65 --sizes=513x513 --chart=bars.svg
  deeplab-tf benchmark --what=serve --clients=200 --seconds=60
  deeplab-tf benchmark --what=convert,help
  deeplab-tf benchmark --what=pipeline,train_step --rounds=15
  deeplab-tf benchmark --what=train_step --device=gpu --networks=v3_resnet101,xception_65 --precision=bfloat16,tf32

convert is compared with reading a checkpoint and building its model, the pipeline with stock operations of tf.image,
the training step with a bare one of Keras. The two sides of a comparison take turns; times are medians. Compare ratios,
not seconds: machines differ.

With --networks the training step of each is measured on a GPU or the CPU instead, in a process of its own: images/s,
the share of the card's peak, memory and the first step. Beside it stands PyTorch's where torch and torchvision are
installed and torchvision has a network like it: the ResNets with DeepLab-v3's plain ASPP.
"""

import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from absl import flags

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.tools import help_pages, options

_Figures: TypeAlias = Mapping[str, float | list[float]]  # a number, or a number for each round

_RUNTIMES_HELP = (
    "what runs them: keras, the exports saved_model, tflite and tflite_int8, and predict with a --runtime: predict "
    "(tflite), tf, tf_frozen, onnx, openvino, auto, which is compared with the best of these"
)
_PREDICTING = (
    ("runtimes", ("keras", "saved_model", "tflite", "tflite_int8", "predict"), _RUNTIMES_HELP),
    ("sizes", ("257x257", "513x513"), "heights x widths, each a multiple of the output stride plus one"),
    ("batches", ("1",), "images at a time"),
)
_STEP_FLAGS = ("device", "precision", "train_batch_size", "crop")  # of train_step with --networks
_SMALL_CROP, _SMALL_BATCH = "65x65", 2


def _of(flag_names: tuple[str, ...], *what: str) -> options.Use[flags.FlagValues]:
    return options.Use(flag_names, f"--what={' or '.join(what)}", lambda values: {*what} & {*values.what})


def _measures_networks(values: flags.FlagValues) -> bool:
    return "train_step" in values.what and bool(values.networks)


_IN_TURNS = ("pipeline", "train_step", "crf", "metrics", "inference")
_USES = (
    _of(("originals", "output_stride", "chart", "runtimes", "sizes", "batches"), "inference"),
    _of(("checkpoints",), "inference", "serve"),
    _of(("clients", "seconds"), "serve"),
    _of(("repeats",), "convert", "help"),
    _of(("rounds", "small"), *_IN_TURNS),
    _of(("networks",), "train_step"),
    options.Use(_STEP_FLAGS, "--what=train_step with --networks", _measures_networks),
)


_FIRST = ("what", "small", "checkpoints", "sizes", "runtimes", "networks", "device", "precision", "json")


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    text = f"what to measure: {', '.join(_WHAT)} (default: all)"
    flags.DEFINE_list("what", list(_WHAT), text, flag_values=values)
    text = (
        "tiny pictures and networks, and with --networks batches, to try the command; what is given stays, and the "
        "figures mean nothing"
    )
    flags.DEFINE_boolean("small", False, text, flag_values=values)
    options.define_path(values, "json", None, "also write the figures to this file")
    with help_pages.grouped(values, "measuring"):
        _define_measurements(values)
        _define_steps(values)
    help_pages.put_first(values, _FIRST)


def _define_measurements(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("repeats", 5, "processes a figure of convert and help (default: 5)", flag_values=values)
    flags.DEFINE_integer("rounds", 9, f"turns of {', '.join(_IN_TURNS)} (default: 9)", flag_values=values)
    text = "inference: models, as --checkpoint of predict; serve takes the first (default: shapes_resnet)"
    options.define_path_list(values, "checkpoints", ["shapes_resnet"], text)
    for name, default, text in _PREDICTING:
        flags.DEFINE_list(name, list(default), f"inference: {text} (default: {','.join(default)})", flag_values=values)
    text = "inference: exports with their certificates, or .pb and .tflite of others, to set beside (default: none)"
    options.define_path_list(values, "originals", [], text)
    text = "inference: output stride of the models (default: their own)"
    flags.DEFINE_integer("output_stride", None, text, flag_values=values)
    text = "inference: also write a bar chart to this SVG file"
    options.define_path(values, "chart", None, text)
    flags.DEFINE_integer("clients", 200, "serve: clients at a time (default: 200)", flag_values=values)
    flags.DEFINE_float("seconds", 60.0, "serve: how long they ask (default: 60)", flag_values=values)


def _define_steps(values: flags.FlagValues) -> None:
    text = (
        "train_step: networks whose step is measured on one device instead, recipes or values of --model_variant, "
        "which have the head of the recipe for their like (default: none)"
    )
    flags.DEFINE_list("networks", [], text, flag_values=values)
    text = "train_step with --networks: auto (a GPU where there is one), cpu or gpu (default: auto)"
    flags.DEFINE_string("device", "auto", text, flag_values=values)
    text = (
        "train_step with --networks: float32, tf32 (float32 that the GPU rounds in products, as `train` has it), "
        "bfloat16, float16, or auto: bfloat16 where the GPU has it, else float32 (default: auto)"
    )
    flags.DEFINE_list("precision", ["auto"], text, flag_values=values)
    text = "train_step with --networks: images of a step (default: 16)"
    flags.DEFINE_integer("train_batch_size", 16, text, flag_values=values)
    flags.DEFINE_string(
        "crop", "513x513", "train_step with --networks: height x width (default: 513x513)", flag_values=values
    )


def _convert(values: flags.FlagValues) -> _Figures:
    from deeplab_tf.benchmarks import processes

    return processes.convert(values.repeats)


def _help(values: flags.FlagValues) -> _Figures:
    from deeplab_tf.benchmarks import processes

    return processes.help_pages(values.repeats)


def _announce(line: str) -> None:
    print(line, file=sys.stderr)


def _pipeline(values: flags.FlagValues) -> _Figures:
    options.start_tensorflow()
    from deeplab_tf.benchmarks import pipeline

    return pipeline.measure(values.rounds, small=values.small, announce=_announce)


def _train_step(values: flags.FlagValues) -> _Figures | dict[str, list[dict]]:
    if values.networks:
        return _steps_of_networks(values)
    options.start_tensorflow()
    from deeplab_tf.benchmarks import train_step

    return train_step.measure(values.rounds, small=values.small, announce=_announce)


def _steps_of_networks(values: flags.FlagValues) -> dict[str, list[dict]]:
    """Returns the rows of the steps of --networks, after printing them as a table."""
    crop, batch = values.crop, values.train_batch_size
    if values.small:
        crop = crop if values["crop"].present else _SMALL_CROP
        batch = batch if values["train_batch_size"].present else _SMALL_BATCH
    size = _size("crop", crop)
    if batch < 1:
        raise DeepLabError(f"--train_batch_size={batch}: expected a number of at least 1")
    options.start_tensorflow()
    from deeplab_tf.benchmarks import step_speed, step_speed_table

    plan = step_speed.StepBenchmark(
        networks=tuple(values.networks),
        precisions=tuple(values.precision),
        device=values.device,
        batch=batch,
        crop=size,
        rounds=values.rounds,
    )
    rows = step_speed.measure(plan, announce=_announce)
    print(f"{step_speed_table.table(rows)}\n")
    return {"train_step": rows}


def _crf(values: flags.FlagValues) -> _Figures:
    from deeplab_tf.benchmarks import crf

    return crf.measure(values.rounds, small=values.small, announce=_announce)


def _metrics(values: flags.FlagValues) -> _Figures:
    options.start_tensorflow()
    from deeplab_tf.benchmarks import metrics

    return metrics.measure(values.rounds, small=values.small, announce=_announce)


def _size(flag: str, text: str) -> tuple[int, int]:
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise DeepLabError(f"--{flag}={text}: expected height x width, for instance 513x513")
    return int(sides[0]), int(sides[1])


def _inference(values: flags.FlagValues) -> dict[str, list[dict]]:
    """Returns the rows of all combinations, after printing them as a table."""
    chosen = [_SMALL_CROP] if values.small and not values["sizes"].present else values.sizes
    sizes = tuple(_size("sizes", text) for text in chosen)
    if not all(batch.isdecimal() and int(batch) for batch in values.batches):
        raise DeepLabError(f"--batches={','.join(values.batches)}: expected numbers of at least 1")
    options.start_tensorflow()
    from deeplab_tf.benchmarks import inference, inference_table

    plan = inference.InferenceBenchmark(
        checkpoints=tuple(values.checkpoints),
        runtimes=tuple(values.runtimes),
        sizes=sizes,
        batches=tuple(map(int, values.batches)),
        originals=tuple(values.originals),
        output_stride=values.output_stride,
        rounds=values.rounds,
    )
    with options.silenced():
        rows = inference.measure(plan)
    print(f"{inference_table.table(rows)}\n")
    if values.chart:
        with files.written(values.chart, flag="--chart") as file:
            file.write_text(inference_table.chart(rows), encoding="utf-8")
    return {"inference": rows}


def _serve(values: flags.FlagValues) -> dict[str, float]:
    for name in ("clients", "seconds"):
        if getattr(values, name) <= 0:
            raise DeepLabError(f"--{name}={values[name].value}: expected a number above 0")
    options.start_tensorflow()
    from deeplab_tf.benchmarks import serve

    return serve.measure(values.clients, values.seconds, values.checkpoints[0])


_WHAT = {
    "convert": _convert,
    "help": _help,
    "pipeline": _pipeline,
    "train_step": _train_step,
    "crf": _crf,
    "metrics": _metrics,
    "inference": _inference,
    "serve": _serve,
}


def _machine() -> str:
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "numpy"))
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _shown(value: float | Sequence[float]) -> str:
    """Returns a number as text, or the median of several with the span of their middle half."""
    if isinstance(value, float | int):
        return f"{value:.2f}"
    if len(value) < 2:
        return f"{value[0]:.2f}"
    low, middle, high = statistics.quantiles(value, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _table(figures: Mapping[str, float | Sequence[float]]) -> str:
    rows = [f"| {name} | {_shown(value)} |" for name, value in figures.items()]
    return "\n".join(["| figure | measured |", "| --- | --- |", *rows])


def _failed(figures: Mapping[str, object]) -> bool:
    """Returns whether no step of --networks could be measured."""
    rows = figures.get("train_step")
    return isinstance(rows, list) and all("error" in row for row in rows if isinstance(row, dict))


def main(values: flags.FlagValues) -> int:
    """Runs the requested measurements and prints their figures as a Markdown table."""
    for what in values.what:
        if what not in _WHAT:
            raise unknown_name("value of what", what, _WHAT)
    options.require_use(values, _USES, values)
    for name in ("repeats", "rounds"):
        if getattr(values, name) < 1:
            raise DeepLabError(f"--{name}={values[name].value}: expected a number of at least 1")
    for name in ("json", "chart"):
        options.require_writable_file(values, name)
    figures = {}
    # What runs in this process may take all of a GPU's memory, which processes of their own need.
    for what in sorted(values.what, key=lambda what: what != "train_step" or not values.networks):
        figures |= _WHAT[what](values)
    medians = f"medians of {values.repeats} processes, or of {values.rounds} turns (and their middle half)"
    others = {name: value for name, value in figures.items() if name not in ("inference", "train_step")}
    print(f"{_machine()}; {medians}" + (f"\n\n{_table(others)}" if others else ""))
    if values.json:
        with files.written(values.json, flag="--json") as file:
            file.write_text(json.dumps({"machine": _machine(), "figures": figures}, indent=1), encoding="utf-8")
    return 1 if _failed(figures) else 0


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
