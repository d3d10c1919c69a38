"""The measurement of `benchmark --what=crf`: `ops.crf.densecrf` beside pydensecrf2, the authors' C++, if installed."""

import importlib.util
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from scipy import ndimage, special

from deeplab_tf.config import EvalConfig
from deeplab_tf.ops.crf import densecrf

_SIZE = (375, 500)
_SMALL_SIZE = (24, 32)
_CLASSES = 21


def _parameters() -> dict:
    parameters = EvalConfig(crf=True).crf_parameters
    assert parameters is not None
    return dict(parameters)


def _probabilities(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Returns probabilities like those of a network, smooth and near 0 or 1: float32 [h, w, classes]."""
    scores = ndimage.gaussian_filter(random.normal(size=(*size, _CLASSES)), (12, 12, 0))
    return special.softmax(8 * scores / scores.std(), axis=-1).astype(np.float32)


def _pictures(size: tuple[int, int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns name -> image, uint8 [h, w, 3], and probabilities."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (*size, 3)).astype(np.uint8)
    waves = ndimage.gaussian_filter(random.normal(size=(*size, 3)), (9, 9, 0))
    smooth = np.clip(128 + 64 * waves / waves.std(), 0, 255).astype(np.uint8)
    return {name: (image, _probabilities(random, size)) for name, image in (("smooth", smooth), ("noisy", noise))}


def _original(image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns the probabilities refined by pydensecrf2."""
    from pydensecrf import densecrf as original  # pyright: ignore[reportMissingImports] (optional)

    height, width, classes = probabilities.shape
    parameters = _parameters()
    crf = original.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(-np.log(np.maximum(probabilities, 1e-5)).reshape(-1, classes).T))
    crf.addPairwiseGaussian(sxy=parameters["sigma_gamma"], compat=parameters["w2"])
    crf.addPairwiseBilateral(
        sxy=parameters["sigma_alpha"],
        srgb=parameters["sigma_beta"],
        rgbim=np.ascontiguousarray(image),
        compat=parameters["w1"],
    )
    return np.array(crf.inference(parameters["iterations"])).T.reshape(probabilities.shape)


def _ours(image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return densecrf(image, probabilities, **_parameters())


def _peak(image: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the largest memory of one run in MB."""
    tracemalloc.start()
    _ours(image, probabilities)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def measure(rounds: int, *, small: bool, announce: Callable[[str], None]) -> dict[str, list[float]]:
    """Returns the figures by name, each a list with one value for each round.

    Args:
      rounds: the number of measurements of each figure.
      small: measure tiny inputs, to try the benchmark; the figures mean nothing.
      announce: called with a line before each part.
    """
    height, width = _SMALL_SIZE if small else _SIZE
    implementations = {"ours": _ours}
    if importlib.util.find_spec("pydensecrf"):
        implementations["pydensecrf2"] = _original
    else:
        announce("crf: no pydensecrf2 to compare with; pip install '.[crf-benchmark]' compiles it")
    figures = {}
    for name, (image, probabilities) in _pictures((height, width)).items():
        announce(f"crf, {name} picture: {rounds} rounds")
        seconds = {implementation: [] for implementation in implementations}
        refined = {}
        for _ in range(rounds):
            for implementation, refine in implementations.items():
                start = time.perf_counter()
                refined[implementation] = refine(image, probabilities)
                seconds[implementation].append(time.perf_counter() - start)
        title = f"CRF, {name} {width} x {height}, {_CLASSES} classes, {_parameters()['iterations']} steps"
        figures[f"{title}, s"] = seconds["ours"]
        figures[f"{title}, peak memory in MB, at most 600"] = [_peak(image, probabilities)]
        if len(implementations) > 1:
            pairs = zip(*seconds.values(), strict=True)
            figures[f"{title} / pydensecrf2, at most 1.5"] = [ours / original for ours, original in pairs]
            agreement = np.mean(refined["ours"].argmax(-1) == refined["pydensecrf2"].argmax(-1))
            figures[f"{title}, pixels of the same class, %"] = [100 * float(agreement)]
    return figures
