"""Runs a network in the runtime that has been measured to be the fastest here, and measures where that will pay."""

import math
import threading
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.candidates import FROZEN, TENSORFLOW, Candidates, Surroundings
from deeplab_tf.inference.class_upsampling import ClassUpsampling
from deeplab_tf.inference.litert import LiteBackend, LiteNetwork
from deeplab_tf.inference.predictor import Backend
from deeplab_tf.inference.runtime_record import RuntimeRecord, Verdict

ROUNDS = 3  # of each candidate, after one to warm up
_ABOUT = 1.5
_AGREEMENT = 0.9999  # of the pixels have TensorFlow's class, as of an exported file of float32
_CLOSE = 1e-4  # of the largest logit: as close as float32 comes after a hundred layers
# A conversion takes between a half (small networks) and four times (large ones) as long as all that TensorFlow does
# for its first picture. This only says when it is tried for the first time: how long it took is kept then.
_CONVERSION_IN_FIRST_RUNS = 2
_FREEZING_IN_FIRST_RUNS = 1  # the same of the frozen graph


class MeasuredBackend:
    """Runs the network where it is fastest: a `Backend`.

    It begins in TensorFlow. Where the record has a verdict of this machine, it changes over when what the pictures to
    come will save is more than what it costs to convert the network; where it has none, the candidates are measured
    when TensorFlow would be busy for longer with the pictures to come than measuring takes.

    Args:
      candidates: what may run the network.
      record: of what was measured here.
      facts: processor, versions and network, that the verdicts depend on.
      surroundings: clock and screen.
    """

    def __init__(
        self, candidates: Candidates, record: RuntimeRecord, facts: Mapping[str, object], surroundings: Surroundings
    ):
        self._candidates, self._record, self._facts, self.surroundings = candidates, record, facts, surroundings
        self._backends: dict[str, Backend] = {TENSORFLOW: candidates.tensorflow}
        self._networks: dict[str, LiteNetwork] = {}  # those that are open
        self._verdicts: dict[int, Verdict | None] = {}
        self._upsampling = ClassUpsampling()
        self._chosen: dict[int, str] = {}  # size class -> runtime, for good
        self._broken: set[str] = set()
        self._current = TENSORFLOW
        self._announced = self._seen = 0.0  # pixels
        self._first: float | None = None  # seconds of TensorFlow's first picture, with all that it prepares
        self._pace = math.inf  # seconds a pixel of TensorFlow since then, at best
        self._converting = self._freezing = 0.0
        self._turn = threading.RLock()

    @property
    def name(self) -> str:
        """What runs the network at present."""
        return self._backends[self._current].name

    @property
    def batches(self) -> bool:
        """Whether images that run together take less time in what runs the network at present."""
        return self._backends[self._current].batches

    def announce(self, pixels: float) -> None:
        """Says that so many pixels are to come."""
        with self._turn:
            self._announced += pixels

    def prepare(self) -> None:
        """Does nothing: what is to be prepared depends on the size of the first picture."""

    def logits(self, images: np.ndarray | tf.Tensor, config: ModelConfig) -> np.ndarray | tf.Tensor:
        """Returns the logits of images; see `Backend`."""
        with self._turn:
            runtime = self._runtime(images, config)
            self._current = runtime
            self._seen += len(images) * _pixels(config)
            backend = self._backends[runtime]
        if runtime != TENSORFLOW:
            try:
                return backend.logits(images, config)
            except DeepLabError as error:
                with self._turn:
                    self._pass_over(runtime, str(error))
        return self._in_tensorflow(images, config)

    def upsampled_classes(self, logits: np.ndarray | tf.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Returns the classes of logits at `size`; see `Backend`."""
        return self._upsampling(np.asarray(logits), size)

    def _in_tensorflow(self, images: np.ndarray | tf.Tensor, config: ModelConfig) -> np.ndarray | tf.Tensor:
        clock = self.surroundings.clock
        start = clock()
        result = self._candidates.tensorflow.logits(images, config)
        seconds = clock() - start
        with self._turn:
            if self._first is None:
                self._first = seconds
            else:
                self._pace = min(self._pace, seconds / (len(images) * _pixels(config)))
        return result

    # ---- the choice

    def _runtime(self, images: np.ndarray | tf.Tensor, config: ModelConfig) -> str:
        size, stride = config.crop_size, config.output_stride
        assert size is not None
        if any(side <= stride or (side - 1) % stride for side in size):
            return TENSORFLOW  # another size needs another conversion
        kind = size_class(size)
        if kind in self._chosen:
            return self._chosen[kind]
        to_come = max(self._announced - self._seen, self._seen)  # where nothing was said, as much again
        facts = {**self._facts, "size_class": kind}
        if kind not in self._verdicts:
            self._verdicts[kind] = self._record.find(facts)
        verdict = self._verdicts[kind]
        if verdict is None and self._measuring_pays(to_come, math.prod(size)):
            verdict = self._verdicts[kind] = self._measured(images[:1], config)
            self._record.add(facts, verdict)
            self._tell_verdict(verdict, size)
        if verdict is None:
            return TENSORFLOW
        return self._by(verdict, config, to_come)

    def _by(self, verdict: Verdict, config: ModelConfig, to_come: float) -> str:
        """Returns the runtime that works and saves the most, what it takes to begin with it counted."""
        assert config.crop_size is not None
        kind = size_class(config.crop_size)
        faster = verdict.order[: verdict.order.index(TENSORFLOW)]
        usable = [name for name in faster if name in self._candidates.others and name not in self._broken]
        if not usable:
            self._chosen[kind] = TENSORFLOW
            return TENSORFLOW
        best, most = TENSORFLOW, 0.0
        for runtime in usable:
            saved = verdict.saved(runtime, to_come)
            if saved > most:
                saved -= self._to_begin(runtime, verdict)
            if saved > most:  # where more pictures come than can be counted, the fastest saves as much as the others
                best, most = runtime, saved
        if best == TENSORFLOW:
            return TENSORFLOW
        if not self._opened(best, config):
            return self._by(verdict, config, to_come)
        if best == usable[0]:  # for good; else more pictures may repay what is faster yet
            self._chosen[kind] = best
            self._close_all_but(best)
        return best

    def _to_begin(self, runtime: str, verdict: Verdict) -> float:
        """Returns the seconds until a runtime can be used."""
        if runtime == FROZEN:
            return 0.0 if FROZEN in self._backends else verdict.freezing
        return 0.0 if self._candidates.files.is_at_hand() else verdict.converting

    def _opened(self, runtime: str, config: ModelConfig) -> bool:
        """Opens a runtime for images of the crop_size of `config`; returns whether it can be used."""
        try:
            with self.surroundings.quiet():
                self._open(runtime, config)
        except DeepLabError as error:
            self._pass_over(runtime, str(error))
        return runtime in self._backends

    def _open(self, runtime: str, config: ModelConfig) -> Backend:
        """Returns the backend of a runtime, open for images of the crop_size of `config`."""
        if runtime == FROZEN:
            assert self._candidates.frozen is not None
            return self._backends.setdefault(FROZEN, self._candidates.frozen)
        self._convert()
        if runtime not in self._networks:
            network = LiteNetwork(self._candidates.files, self._candidates.libraries[runtime])
            self._networks[runtime] = network
            self._backends[runtime] = LiteBackend(network, self._candidates.tensorflow)
        self._networks[runtime].opened(config, convert_anew=False)
        return self._backends[runtime]

    def _close(self, runtime: str) -> None:
        self._networks.pop(runtime, None)
        self._backends.pop(runtime, None)
        if runtime == FROZEN and self._candidates.frozen:
            self._candidates.frozen.release()

    def _close_all_but(self, runtime: str) -> None:
        """Closes what nothing is chosen to run in: each holds a copy of the weights."""
        self._current = runtime
        for name in self._candidates.others:
            if name not in (runtime, *self._chosen.values()):
                self._close(name)

    def _convert(self) -> None:
        files, clock = self._candidates.files, self.surroundings.clock
        at_hand, start = files.is_at_hand(), clock()
        if files.resizable() is None:
            raise DeepLabError("the network cannot be converted for all sizes at once")
        if not at_hand:
            self._converting = clock() - start

    def _pass_over(self, runtime: str, reason: str) -> None:
        self._current = TENSORFLOW
        self._close(runtime)
        self._broken.add(runtime)
        self._chosen = {kind: name for kind, name in self._chosen.items() if name != runtime}
        self.surroundings.tell(f"--runtime=auto passes over {self._candidates.shown(runtime)}: {reason}")

    # ---- measuring

    def _measuring_pays(self, to_come: float, pixels: int) -> bool:
        if not set(self._candidates.others) - self._broken:
            return False
        if to_come == math.inf:
            return True
        if self._first is None or self._pace == math.inf:
            return False  # how fast TensorFlow is is not known yet
        beginning = _FREEZING_IN_FIRST_RUNS * self._first if self._candidates.frozen else 0.0
        if self._candidates.libraries and not self._candidates.files.is_at_hand():
            beginning += _CONVERSION_IN_FIRST_RUNS * self._first
        runs = (1 + len(self._candidates.others)) * (1 + ROUNDS) * pixels * self._pace
        return to_come * self._pace > beginning + runs

    def _measured(self, image: np.ndarray | tf.Tensor, config: ModelConfig) -> Verdict:
        """Measures TensorFlow and all others with an image [1, h, w, c]."""
        pixels, clock = np.asarray(image), self.surroundings.clock
        start = clock()
        expected = np.asarray(self._candidates.tensorflow.logits(pixels, config))
        if self._first is None:
            self._first = clock() - start
        passed_over = {}
        runtimes = [TENSORFLOW]
        with self.surroundings.quiet():
            for runtime in self._candidates.others:
                start = clock()
                reason = self._fault(runtime, pixels, config, expected)
                if runtime == FROZEN:
                    self._freezing = clock() - start
                if reason is None:
                    runtimes.append(runtime)
                else:
                    passed_over[runtime] = reason
        for runtime, reason in passed_over.items():
            self._pass_over(runtime, reason)
        seconds = dict.fromkeys(runtimes, math.inf)
        in_question = runtimes
        for _ in range(2):
            # One after the other, not in turns: the threads of a library go on waiting for more, busily, for a while.
            for runtime in (name for name in in_question for _ in range(ROUNDS)):
                start = clock()
                np.asarray(self._backends[runtime].logits(pixels, config))
                seconds[runtime] = min(seconds[runtime], clock() - start)
            # What is about as fast as the fastest runs as often again: on a busy machine three runs do not tell.
            in_question = [name for name in runtimes if seconds[name] <= _ABOUT * min(seconds.values())]
            if len(in_question) < 2:
                break
        # Where another process has converted, how long that took can but be guessed.
        converting = self._converting or _CONVERSION_IN_FIRST_RUNS * self._first
        verdict = Verdict(_pixels(config), seconds, passed_over, converting, self._freezing)
        self._close_all_but(verdict.order[0])
        return verdict

    def _fault(self, runtime: str, pixels: np.ndarray, config: ModelConfig, expected: np.ndarray) -> str | None:
        """Opens a runtime and runs it once, to warm it up; returns why it cannot be used, or None."""
        try:
            found = np.asarray(self._open(runtime, config).logits(pixels, config))
        except DeepLabError as error:
            return str(error)
        return _difference(found, expected)

    def _tell_verdict(self, verdict: Verdict, size: tuple[int, int]) -> None:
        shown = self._candidates.shown
        times = ", ".join(f"{shown(name)} {1000 * verdict.seconds[name]:.0f} ms" for name in verdict.order)
        self.surroundings.tell(f"Measured here at {size[0]} x {size[1]}: {times} a picture, kept for the next time")


def _pixels(config: ModelConfig) -> int:
    """Returns the pixels of one image that `config` is for."""
    assert config.crop_size is not None
    return math.prod(config.crop_size)


def size_class(size: tuple[int, int]) -> int:
    """Returns the class of a size, height and width: those of four times as many pixels are another."""
    return round(math.log2(math.prod(size)) / 2)


def _difference(found: np.ndarray, expected: np.ndarray) -> str | None:
    """Returns what is wrong with logits beside those of TensorFlow; None where they are the same up to rounding."""
    if found.shape != expected.shape:
        return f"its logits have the shape {found.shape}, and TensorFlow's {expected.shape}"
    if np.abs(found - expected).max() <= _CLOSE * np.abs(expected).max():
        return None
    agreement = np.mean(found.argmax(-1) == expected.argmax(-1))
    if agreement >= _AGREEMENT:
        return None
    return f"{100 * agreement:.2f} % of the pixels have TensorFlow's class; expected {100 * _AGREEMENT:.2f} %"
