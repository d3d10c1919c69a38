"""A signal after OpenVINO has run: its models leave the stack of the handlers as it was."""

import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

# Two are opened, as when the runtimes of a network are timed at two sizes, and the first is freed first.
# Python's handlers run on another stack where there is one; faulthandler makes one, as pytest does.
PROGRAM = """
import faulthandler, os, signal
faulthandler.enable()
import numpy as np, openvino
from openvino import opset13 as ops
from deeplab_tf.inference.libraries import openvino_request

def opened():
    images = ops.parameter([1, 8, 16, 16], np.float32)
    kernel = ops.constant(np.ones((8, 8, 3, 3), np.float32))
    model = openvino.Model([ops.convolution(images, kernel, [1, 1], [1, 1], [1, 1], [1, 1])], [images], "model")
    return openvino_request(openvino.Core(), model)

first = opened()
second = opened()
del first
del second
signal.signal(signal.SIGTERM, lambda number, frame: print("handled", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.heavy
def test_a_signal_after_models_of_openvino_are_freed():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr[-2000:]
