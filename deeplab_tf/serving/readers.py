"""`Readers`: the processes that read requests, each of which is replaced when it ends or does not come back."""

import asyncio
import contextlib
import json
import logging
import math
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, cast

import numpy as np

from deeplab_tf.documents.json_files import parse_json
from deeplab_tf.serving.protocol import PredictRequest
from deeplab_tf.serving.reading import (
    ASKED,
    PICTURE,
    READY,
    REQUEST,
    TOLD,
    PageRequest,
    Settings,
    Told,
    ToldArray,
    understood,
)
from deeplab_tf.serving.refusal import Refused

_LOG = logging.getLogger(__name__)
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from deeplab_tf.serving.reading import main; "
    "main(sys.argv[2])"
)
_LARGEST_HEAD = 1 << 20  # bytes of the JSON before the arrays


class _Gone(Exception):
    """The process has ended, of itself or because it took too long."""


class _Reader:
    """One process that reads requests, and the threads' way to it: one request at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def start(self) -> None:
        """Starts the process if it does not run, and waits until it is ready."""
        if self._process is not None and self._process.poll() is None:
            return
        self.end()
        arguments = [json.dumps([entry or os.getcwd() for entry in sys.path]), json.dumps(self._settings.to_json())]
        # One thread is enough, and each more takes address space, which is limited.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        if self._output().read(1) != READY:
            raise RuntimeError("a process that reads requests did not start")

    def _output(self) -> IO[bytes]:
        assert self._process and self._process.stdout
        return self._process.stdout

    def end(self) -> None:
        """Ends the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):  # what was not sent yet
                        stream.close()

    def kill(self) -> None:
        """Makes the process end, from another thread than the one that waits for it."""
        if self._process is not None:
            self._process.kill()

    def _exactly(self, count: int) -> bytearray:
        """Returns so many bytes of the process."""
        content = bytearray(count)
        view, output = memoryview(content), self._output()
        while view:
            got = cast("Any", output).readinto(view)
            if not got:
                raise _Gone
            view = view[got:]
        return content

    def ask(self, kind: int, content: bytes) -> PredictRequest | PageRequest:
        """Returns what the process makes of a request.

        Raises:
          Refused: it is not one that is taken.
          _Gone: the process ended over it.
        """
        assert self._process and self._process.stdin
        try:
            self._process.stdin.write(ASKED.pack(kind, len(content)))
            self._process.stdin.write(content)
            self._process.stdin.flush()
            (length,) = TOLD.unpack(self._exactly(TOLD.size))
            if length > _LARGEST_HEAD:
                raise _Gone
            told = parse_json(bytes(self._exactly(length)), Told)
            arrays = [self._array(entry) for entry in told.arrays]
            answer = None if told.fields is None else understood(kind, told.fields, arrays)
        except (OSError, ValueError, KeyError, TypeError):
            self.kill()
            raise _Gone from None
        if answer is None and told.status:
            raise Refused(told.status, told.reason)
        if answer is None:
            raise RuntimeError(f"a request could not be read ({told.reason})")
        return answer

    def _array(self, entry: ToldArray) -> np.ndarray:
        dtype, shape = np.dtype(entry.dtype), entry.shape
        count = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or count > self._settings.memory:
            raise ValueError(shape)
        return np.frombuffer(self._exactly(count), dtype).reshape(shape)


class Readers:
    """Processes that read requests. It belongs to the event loop; `start` has to be called in it.

    Args:
      settings: how requests are read.
      count: of processes.
      seconds: that one request may take, besides the limit of the processor's time.
    """

    def __init__(self, settings: Settings, *, count: int, seconds: float) -> None:
        self._settings = settings
        self._seconds = seconds
        self._readers = [_Reader(settings) for _ in range(count)]
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="reading")
        self._idle: asyncio.LifoQueue[_Reader] = asyncio.LifoQueue()
        for reader in self._readers:
            self._idle.put_nowait(reader)
        self.replacements = 0

    def start(self) -> None:
        """Starts all processes, without waiting for them; without it each starts when it is needed."""
        for _ in self._readers:
            self._occupy(self._idle.get_nowait(), lambda reader: reader.start())

    def _occupy(self, reader: _Reader, work: Any) -> "asyncio.Future[Any]":
        """Runs something with a reader in a thread; the reader is idle again when that is done."""
        done = asyncio.get_running_loop().run_in_executor(self._threads, work, reader)
        done.add_done_callback(lambda done: self._idle.put_nowait(reader) or done.cancelled() or done.exception())
        return done

    async def _ask(self, kind: int, content: bytes) -> PredictRequest | PageRequest:
        reader = await self._idle.get()
        loop = asyncio.get_running_loop()
        watchdogs: list[asyncio.TimerHandle] = []
        lock = threading.Lock()
        answered, expired = threading.Event(), threading.Event()

        def expire() -> None:
            with lock:
                if not answered.is_set():
                    expired.set()
                    reader.kill()

        def work(reader: _Reader) -> PredictRequest | PageRequest:
            reader.start()
            loop.call_soon_threadsafe(lambda: watchdogs.append(loop.call_later(self._seconds, expire)))
            try:
                return reader.ask(kind, content)
            except _Gone:
                reader.end()
                raise
            finally:
                with lock:
                    answered.set()
                if expired.is_set():
                    reader.end()  # it may have answered and been killed after that: the next request needs another
                loop.call_soon_threadsafe(lambda: watchdogs.pop().cancel())

        answer = self._occupy(reader, work)
        try:
            return await asyncio.shield(answer)
        except _Gone:
            self.replacements += 1
            _LOG.error("a request that took too long to be read, or too much memory; its process is replaced")
            limit = f"{self._settings.seconds} s of the processor and {self._settings.memory / 1e6:.0f} MB"
            raise Refused(413, f"reading it takes more than is allowed ({limit})") from None

    async def request(self, body: bytes) -> PredictRequest:
        """Returns the contents of the body of a :predict request. Refused if it is not one that is taken."""
        found = await self._ask(REQUEST, body)
        assert isinstance(found, PredictRequest)
        return found

    async def picture(self, content: bytes) -> PageRequest:
        """Returns a picture that the page sent. Refused if it is not one that is taken."""
        found = await self._ask(PICTURE, content)
        assert isinstance(found, PageRequest)
        return found

    async def stop(self) -> None:
        """Ends the processes."""
        for reader in self._readers:
            reader.kill()
        await asyncio.to_thread(self._threads.shutdown)
        for reader in self._readers:
            reader.end()
