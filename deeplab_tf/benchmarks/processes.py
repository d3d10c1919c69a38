"""Measures commands in processes of their own: convert beside what it cannot do without, and --help."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

_COMMANDS = ("convert", "predict", "zoo", "demo", "benchmark")

# Programs for processes of their own, which print seconds and bytes as JSON. Both exclude the import of TensorFlow.
_START = """
import json, os, resource, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf, keras
import deeplab_tf
from deeplab_tf.weights.loading import open_model
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
from deeplab_tf.weights.model_directory import save_model
loaded = open_model(sys.argv[1])
save_model(sys.argv[2], loaded.model, loaded.receipt, card=loaded.card, state=loaded.state)
"""
_END = """
print(json.dumps({"seconds": time.perf_counter() - start, "bytes": peak() - before}))
"""
_WRITE = """
import json, sys
import numpy as np
import deeplab_tf
from deeplab_tf.weights.tf1 import save_tf1_checkpoint
save_tf1_checkpoint(deeplab_tf.build_model(deeplab_tf.ModelConfig(**json.loads(sys.argv[3]))), sys.argv[1])
"""
_XCEPTION_65 = {"model_variant": "xception_65", "atrous_rates": [6, 12, 18], "decoder_output_stride": [4]}


def _process(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def _measured(code: str, *arguments: str) -> dict[str, float]:
    return json.loads(_process(_START + code + _END, *arguments))


def _median(runs: list[dict], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def convert(repeats: int) -> dict[str, float]:
    """Returns the figures of convert beside reading a checkpoint and building its model, of so many runs each."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = os.path.join(folder, "model.ckpt")
        config = json.dumps(_XCEPTION_65)
        _process(_WRITE, prefix, "", config)
        size = os.path.getsize(f"{prefix}.data-00000-of-00001")

        baseline = []
        convert = []
        for number in range(repeats):  # in turn, because the speed of a shared machine drifts
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


def help_pages(repeats: int) -> dict[str, float]:
    """Returns the median time of --help of some commands, of so many runs each."""
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
