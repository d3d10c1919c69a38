"""What `benchmark --what=crf` measures: `crf.densecrf` beside pydensecrf2 (the authors' C++), where it is installed."""

import importlib.util
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from scipy import ndimage, special

from deeplab_tf.config import EvalConfig
from deeplab_tf.ops.crf import densecrf

_SIZE, _SMALL_SIZE, _CLASSES = (375, 500), (24, 32), 21
_SETTING = EvalConfig(crf=True).crf_parameters


def _guess(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Probabilities as a network gives them: smooth, and sure of themselves."""
    scores = ndimage.gaussian_filter(random.normal(size=(*size, _CLASSES)), (12, 12, 0))
    return special.softmax(8 * scores / scores.std(), axis=-1).astype(np.float32)


def _pictures(size: tuple[int, int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (*size, 3)).astype(np.uint8)
    waves = ndimage.gaussian_filter(random.normal(size=(*size, 3)), (9, 9, 0))
    smooth = np.clip(128 + 64 * waves / waves.std(), 0, 255).astype(np.uint8)
    return {name: (image, _guess(random, size)) for name, image in (("smooth", smooth), ("noisy", noise))}


def _original(image: np.ndarray, guess: np.ndarray) -> np.ndarray:
    from pydensecrf import densecrf as original

    height, width, classes = guess.shape
    crf = original.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(-np.log(np.maximum(guess, 1e-5)).reshape(-1, classes).T))
    crf.addPairwiseGaussian(sxy=_SETTING["sigma_gamma"], compat=_SETTING["w2"])
    colours = {"srgb": _SETTING["sigma_beta"], "rgbim": np.ascontiguousarray(image)}
    crf.addPairwiseBilateral(sxy=_SETTING["sigma_alpha"], compat=_SETTING["w1"], **colours)
    return np.array(crf.inference(_SETTING["iterations"])).T.reshape(guess.shape)


def _ours(image: np.ndarray, guess: np.ndarray) -> np.ndarray:
    return densecrf(image, guess, **_SETTING)


def _peak(image: np.ndarray, guess: np.ndarray) -> float:
    tracemalloc.start()
    _ours(image, guess)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def measure(rounds: int, *, small: bool, tell: Callable[[str], None]) -> dict[str, list[float]]:
    """Returns the figures by name, a list of one for each round. `tell` hears what is being measured."""
    height, width = size = _SMALL_SIZE if small else _SIZE
    ways = {"ours": _ours}
    if importlib.util.find_spec("pydensecrf"):
        ways["pydensecrf2"] = _original
    else:
        tell("crf: no pydensecrf2 to compare with; pip install '.[crf-benchmark]' compiles it")
    figures = {}
    for name, (image, guess) in _pictures(size).items():
        tell(f"crf, {name} picture: {rounds} rounds")
        seconds, found = {way: [] for way in ways}, {}
        for _ in range(rounds):
            for way, refine in ways.items():
                start = time.perf_counter()
                found[way] = refine(image, guess)
                seconds[way].append(time.perf_counter() - start)
        title = f"CRF, {name} {width} x {height}, {_CLASSES} classes, {_SETTING['iterations']} steps"
        figures[f"{title}, s"] = seconds["ours"]
        figures[f"{title}, peak memory in MB, at most 600"] = [_peak(image, guess)]
        if len(ways) > 1:
            pairs = zip(*seconds.values(), strict=True)
            figures[f"{title} / pydensecrf2, at most 1.5"] = [ours / original for ours, original in pairs]
            agreement = np.mean(found["ours"].argmax(-1) == found["pydensecrf2"].argmax(-1))
            figures[f"{title}, pixels of the same class, %"] = [100 * float(agreement)]
    return figures
