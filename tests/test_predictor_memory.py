"""The memory that a very large picture takes, in a process of its own."""

import subprocess
import sys

import pytest
from conftest import ROOT

LARGE = r"""
import pathlib, re, resource, sys
import numpy as np
sys.path.insert(0, "tests")
import conftest
from deeplab_tf.config import ModelConfig, PredictConfig
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.inference.tiles import segment
from deeplab_tf.network.build import build_model
model = build_model(ModelConfig(model_variant="tiny", aspp_convs_filters=16))
conftest.fill(model)
tile = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
image = tile.repeat(100, 0).repeat(100, 1)
assert image.shape == (6000, 8000, 3)
labels = segment(predictor_of(model), image, PredictConfig(resize=sys.argv[1]))
assert labels.shape == (6000, 8000) and labels.max() < 21
# Linux counts the peak of the process that started this one into ru_maxrss; VmHWM begins with the program.
status = pathlib.Path("/proc/self/status")
peak = re.search(r"VmHWM:\s+(\d+)", status.read_text())[1] if status.exists() else None
print(float(peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 2**20)
"""


@pytest.mark.heavy
@pytest.mark.parametrize(("resize", "bound"), [("none", 2.5), ("longest", 1.6)])
def test_memory_of_48_megapixels_is_bounded(resize, bound):
    # The whole picture in one piece would take 4 GiB for the upsampled logits alone.
    done = subprocess.run([sys.executable, "-c", LARGE, resize], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split()[-1]) < bound  # GiB
