"""Many clients at one server: how many requests are answered, how fast, how many fail, and what its memory does.

Measured by tools/benchmark.py. The server is a process of its own, on this machine's own address.
"""

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import PIL.Image

from deeplab_tf.benchmarks.pipeline import photograph
from deeplab_tf.errors import DeepLabError

_SIZE = (120, 160)  # of the photographs
_SAMPLES = 20  # of the memory


@contextlib.contextmanager
def _server(checkpoint: str) -> Iterator[tuple[int, int]]:
    """Gives (port, process id) of a server."""
    command = [sys.executable, "-m", "deeplab_tf.tools.cli", "serve", f"--checkpoint={checkpoint}", "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if found := re.search(r"Page: http://127\.0\.0\.1:(\d+)/", line):
                yield int(found[1]), process.pid
                break
        else:
            raise DeepLabError(f"the server did not start: {process.stderr.read().strip()}")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def _memory(process: int) -> float:
    """Megabytes that a process occupies."""
    with open(f"/proc/{process}/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _request() -> bytes:
    image, stream = photograph(_SIZE, 1)[0], io.BytesIO()
    PIL.Image.fromarray(image).save(stream, "JPEG")
    content = base64.b64encode(stream.getvalue()).decode()
    body = json.dumps({"instances": [{"b64": content}]}).encode()
    head = f"POST /v1/models/deeplab:predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
    return f"{head}content-type: application/json\r\n\r\n".encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(re.search(r"content-length: (\d+)", head)[1])
    return int(head.split(" ", 2)[1]), await reader.readexactly(length)


async def _client(port: int, request: bytes, until: float, seconds: list[float], faults: list[str], answers: set):
    """Asks again and again, on one connection."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until:
            start = time.perf_counter()
            writer.write(request)
            status, content = await _answer(reader)
            seconds.append(time.perf_counter() - start)
            answers.add(hash(content))
            if status != 200:
                faults.append(f"{status} {content[:100]!r}")
        writer.close()
    except (OSError, asyncio.IncompleteReadError) as error:
        faults.append(repr(error))


async def _clients(count: int, port: int, duration: float, seconds: list[float], faults: list[str], answers: set):
    request, until = _request(), time.perf_counter() + duration
    await asyncio.gather(*(_client(port, request, until, seconds, faults, answers) for _ in range(count)))


def measure(clients: int, duration: float, checkpoint: str) -> dict[str, float | list[float]]:
    """Returns the figures of `clients` asking for `duration` seconds. DeepLabError: the server does not start."""
    seconds, faults, memory, answers = [], [], [], set()
    with _server(checkpoint) as (port, process):
        asyncio.run(_clients(4, port, min(duration, 2.0), [], faults, set()))  # to warm it up
        ended = threading.Event()

        def watch():
            while not ended.wait(duration / _SAMPLES):
                memory.append(_memory(process))

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        asyncio.run(_clients(clients, port, duration, seconds, faults, answers))
        wall = time.perf_counter() - start
        ended.set()
        watcher.join()
    if faults:
        print(*sorted(set(faults))[:5], sep="\n", file=sys.stderr)
    middle = len(memory) // 2
    return {
        f"{clients} clients for {duration:g} s: requests answered": float(len(seconds)),
        f"{clients} clients: failed requests, at most 0": float(len(faults)),
        f"{clients} clients: different answers to the same question, at most 1": float(len(answers)),
        f"{clients} clients: requests/s": len(seconds) / wall,
        f"{clients} clients: seconds to an answer, median": statistics.median(seconds),
        f"{clients} clients: seconds to an answer, 99 of 100": float(np.quantile(seconds, 0.99)),
        f"{clients} clients: memory of the server, MB, second half / first": (
            statistics.mean(memory[middle:]) / statistics.mean(memory[:middle])
        ),
        f"{clients} clients: memory of the server at the end, MB": memory[-1],
    }
