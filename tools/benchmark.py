"""Measures this machine: what converting costs beside reading and building, and how soon --help answers.

  deeplab-tf benchmark --what=convert,help

Every figure comes from a process of its own; times are medians. Compare ratios, not seconds: machines differ.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags

from deeplab_tf.errors import unknown_name
from deeplab_tf.tools import options

_COMMANDS = ("convert", "predict", "zoo", "demo", "benchmark")

# Each prints seconds and bytes as JSON. The import of TensorFlow is left out of both.
_START = """
import json, os, resource, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf, keras
import deeplab_tf.loading
peak = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tf.constant(0.0)
before, start = peak(), time.perf_counter()
"""
_READ_AND_BUILD = """
reader = tf.train.load_checkpoint(sys.argv[1])
for name in reader.get_variable_to_shape_map():
    reader.get_tensor(name)
deeplab_tf.build_model(deeplab_tf.ModelConfig(**json.loads(sys.argv[3])))
"""
_CONVERT = """
from deeplab_tf.checkpoint import save_model
loaded = deeplab_tf.loading.open_model(sys.argv[1])
save_model(sys.argv[2], loaded.model, loaded.receipt, card=loaded.card, state=loaded.state)
"""
_END = """
print(json.dumps({"seconds": time.perf_counter() - start, "bytes": peak() - before}))
"""
_WRITE = """
import json, sys
import numpy as np
import deeplab_tf
from deeplab_tf.checkpoint import save_tf1_checkpoint
save_tf1_checkpoint(deeplab_tf.build_model(deeplab_tf.ModelConfig(**json.loads(sys.argv[3]))), sys.argv[1])
"""
_XCEPTION_65 = {"model_variant": "xception_65", "atrous_rates": [6, 12, 18], "decoder_output_stride": [4]}


def define(values: flags.FlagValues):
    """Defines the flags of this command."""
    text = "what to measure: convert, help (default: both)"
    flags.DEFINE_list("what", ["convert", "help"], text, flag_values=values)
    flags.DEFINE_integer("repeats", 5, "processes a figure (default: 5)", flag_values=values)
    flags.DEFINE_string("json", None, "also write the figures to this file", flag_values=values)


def _process(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def _measured(code: str, *arguments: str) -> dict[str, float]:
    return json.loads(_process(_START + code + _END, *arguments))


def _median(runs: list[dict], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def _convert(repeats: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        prefix, config = os.path.join(folder, "model.ckpt"), json.dumps(_XCEPTION_65)
        _process(_WRITE, prefix, "", config)
        size = os.path.getsize(f"{prefix}.data-00000-of-00001")

        baseline, convert = [], []
        for number in range(repeats):  # in turn, since a shared machine's speed drifts
            baseline.append(_measured(_READ_AND_BUILD, prefix, "", config))
            convert.append(_measured(_CONVERT, prefix, os.path.join(folder, f"out{number}")))
    ratios = [c["seconds"] / b["seconds"] for c, b in zip(convert, baseline, strict=True)]
    return {
        "Xception-65 checkpoint, MB": size / 1e6,
        "read it and build the model, s": _median(baseline, "seconds"),
        "convert it, s": _median(convert, "seconds"),
        "convert / (read and build), at most 3": statistics.median(ratios),
        "peak memory of convert / checkpoint, at most 4": _median(convert, "bytes") / size,
    }


def _help(repeats: int) -> dict[str, float]:
    seconds = {}
    for command in _COMMANDS:
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            arguments = [sys.executable, "-m", "deeplab_tf.tools.cli", command, "--help"]
            subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
        seconds[f"deeplab-tf {command} --help, s, at most 0.5"] = statistics.median(times)
    return seconds


_WHAT = {"convert": _convert, "help": _help}


def _machine() -> str:
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "numpy"))
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def main(values: flags.FlagValues) -> None:
    """Measures and prints a Markdown table."""
    for what in values.what:
        if what not in _WHAT:
            raise unknown_name("value of what", what, _WHAT)
    figures = {}
    for what in values.what:
        figures |= _WHAT[what](max(1, values.repeats))
    print(f"{_machine()}; median of {max(1, values.repeats)} processes\n\n| figure | measured |\n| --- | --- |")
    for name, value in figures.items():
        print(f"| {name} | {value:.2f} |")
    if values.json:
        with open(values.json, "w", encoding="utf-8") as stream:
            json.dump({"machine": _machine(), "figures": figures}, stream, indent=1)


def run(argv=None):
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
