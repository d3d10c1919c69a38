"""Classes at full size from logits, by the fastest of several equal ways, as found while they are used.

Which way is the fastest depends on the processor and on the pictures: `sparse` interpolates on borders alone.
"""

import collections
import math
import threading
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeplab_tf.ops.upsampling import compile_classes, exact_stride, plain_classes, upsampled_classes

Classes = Callable[[np.ndarray, tuple[int, int]], np.ndarray]
_WAYS: dict[str, Classes] = {"sparse": upsampled_classes, "plain": plain_classes}
_COMPILED = "compiled"
_TRIALS = 2  # of each way before one is preferred; the first may have to begin something
_COMPILING = 0.15  # seconds for a size, until the first has shown it; as many are spent on the size before it pays
_MOST_COMPILED = 16  # sizes
_TRIED_AGAIN_EVERY = 100  # calls, because pictures change
_WEIGHT_OF_THE_LAST = 0.25  # in the mean of a way's times


class _Times:
    """How long a call takes by each way: a mean in which the last calls count the most, from the better first ones."""

    def __init__(self) -> None:
        self.calls = 0
        self._counts: collections.Counter[str] = collections.Counter()
        self._means: dict[str, float] = {}

    def next(self, ways: list[str]) -> str:
        """Returns the way for the next call: the fastest of `ways`, or one that is to be tried."""
        self.calls += 1
        for way in ways:
            if self._counts[way] < _TRIALS:
                return way
        if self.calls % _TRIED_AGAIN_EVERY == 0:
            return min(ways, key=lambda way: self._counts[way])
        return min(ways, key=lambda way: self._means[way])

    def add(self, way: str, seconds: float) -> None:
        """Notes a call."""
        self._counts[way] += 1
        mean = self._means.get(way, seconds)
        if self._counts[way] <= _TRIALS:
            self._means[way] = min(mean, seconds)
        else:
            self._means[way] = (1 - _WEIGHT_OF_THE_LAST) * mean + _WEIGHT_OF_THE_LAST * seconds

    def loses(self, way: str) -> bool:
        """Returns whether a way has been tried and is not the fastest."""
        return self._counts[way] >= _TRIALS and way != min(self._means, key=lambda other: self._means[other])


class ClassUpsampling:
    """argmax(resize_bilinear(logits, size)) by the way that has been the fastest for logits like these.

    Args:
      clock: seconds, counted from anywhere.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._times: dict[tuple, _Times] = {}
        self._spent: collections.defaultdict[tuple, float] = collections.defaultdict(float)  # seconds at a size
        self._compiling = _COMPILING
        self._fresh: set[tuple] = set()  # compiled with the next call
        self._compiled: collections.OrderedDict[tuple, Classes] = collections.OrderedDict()
        self._turn = threading.Lock()

    def __call__(self, logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Returns the classes int32 [b, *size] of logits float32 [b, h, w, classes]."""
        stride = exact_stride((logits.shape[1], logits.shape[2]), size)
        if stride is None:  # the other ways are for powers of two
            return plain_classes(logits, size)
        # Times are compared among pictures of about a size.
        like = (stride, logits.shape[-1], round(math.log2(len(logits) * size[0] * size[1])))
        with self._turn:
            times = self._times.setdefault(like, _Times())
            way, classes = self._next(times, logits.shape, size)
        start = self._clock()
        try:
            result = classes(logits, size)
        except tf.errors.OpError:  # TensorFlow was built without XLA, or has none for this processor
            if way != _COMPILED:
                raise
            result, start = plain_classes(logits, size), -math.inf
        seconds = self._clock() - start
        with self._turn:
            key = (logits.shape, size)
            if way == _COMPILED and key in self._fresh and seconds < math.inf:
                self._compiling = seconds
                self._fresh.remove(key)
            else:
                self._spent[key] += seconds
                times.add(way, seconds)
        return result

    def _next(self, times: _Times, shape: tuple[int, ...], size: tuple[int, int]) -> tuple[str, Classes]:
        key = (shape, size)
        if key not in self._compiled and self._spent[key] > self._compiling and not times.loses(_COMPILED):
            self._compiled[key] = compile_classes(shape, size)
            self._fresh.add(key)
            if len(self._compiled) > _MOST_COMPILED:
                self._compiled.popitem(last=False)
        ways = _WAYS | ({_COMPILED: self._compiled[key]} if key in self._compiled else {})
        way = times.next(list(ways))
        return way, ways[way]
