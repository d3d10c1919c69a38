"""The measurement of `benchmark --what=serve`: many clients at one server.

The figures are the answered and the failed requests, their latency, and the server's memory. The server is a process of
its own, on this machine's own address.
"""

import asyncio
import base64
import contextlib
import dataclasses
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

_SIZE = (120, 160)  # height and width of the photographs
_SAMPLES = 20  # measurements of the memory


@contextlib.contextmanager
def _server(checkpoint: str) -> Iterator[tuple[int, int]]:
    """Runs a server for the duration of the context, and yields its port and process id."""
    command = [sys.executable, "-m", "deeplab_tf.tools.cli", "serve", f"--checkpoint={checkpoint}", "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    try:
        for line in process.stdout:
            if address := re.search(r"Page: http://127\.0\.0\.1:(\d+)/", line):
                yield int(address[1]), process.pid
                break
        else:
            raise DeepLabError(f"the server did not start: {process.stderr.read().strip()}")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def _memory(process: int) -> float:
    """Returns the memory of a process in MB."""
    with open(f"/proc/{process}/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _request() -> bytes:
    """Returns a request for the classes of a photograph, as it goes over the wire."""
    image, _ = photograph(_SIZE, 1)
    stream = io.BytesIO()
    PIL.Image.fromarray(image).save(stream, "JPEG")
    content = base64.b64encode(stream.getvalue()).decode()
    body = json.dumps({"instances": [{"b64": content}]}).encode()
    head = f"POST /v1/models/deeplab:predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
    return f"{head}content-type: application/json\r\n\r\n".encode() + body


@dataclasses.dataclass
class _Results:
    """The results of all clients: seconds to each answer, descriptions of failures, hashes of the answers."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)
    answers: set[int] = dataclasses.field(default_factory=set)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Returns the status and the body of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = re.search(r"content-length: (\d+)", head)
    assert length, head
    return int(head.split(" ", 2)[1]), await reader.readexactly(int(length[1]))


async def _client(port: int, request: bytes, until: float, results: _Results) -> None:
    """Sends the request again and again on one connection, until the time `until`."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until:
            start = time.perf_counter()
            writer.write(request)
            status, content = await _answer(reader)
            results.seconds.append(time.perf_counter() - start)
            results.answers.add(hash(content))
            if status != 200:
                results.faults.append(f"{status} {content[:100]!r}")
        writer.close()
    except (OSError, asyncio.IncompleteReadError) as error:
        results.faults.append(repr(error))


async def _clients(count: int, port: int, duration: float) -> _Results:
    """Returns the results of `count` clients at once, for `duration` seconds."""
    request = _request()
    results = _Results()
    until = time.perf_counter() + duration
    await asyncio.gather(*(_client(port, request, until, results) for _ in range(count)))
    return results


def measure(clients: int, duration: float, checkpoint: str) -> dict[str, float]:
    """Returns the figures of `clients` that send requests for `duration` seconds.

    Raises:
      DeepLabError: the server does not start.
    """
    memory = []
    with _server(checkpoint) as (port, process):
        warm_up = asyncio.run(_clients(4, port, min(duration, 2.0)))
        ended = threading.Event()

        def sample_memory() -> None:
            while not ended.wait(duration / _SAMPLES):
                memory.append(_memory(process))

        watcher = threading.Thread(target=sample_memory)
        watcher.start()
        start = time.perf_counter()
        results = asyncio.run(_clients(clients, port, duration))
        wall = time.perf_counter() - start
        ended.set()
        watcher.join()
    faults = warm_up.faults + results.faults
    if faults:
        print(*sorted(set(faults))[:5], sep="\n", file=sys.stderr)
    middle = len(memory) // 2
    return {
        f"{clients} clients for {duration:g} s: requests answered": float(len(results.seconds)),
        f"{clients} clients: failed requests, at most 0": float(len(faults)),
        f"{clients} clients: different answers to the same question, at most 1": float(len(results.answers)),
        f"{clients} clients: requests/s": len(results.seconds) / wall,
        f"{clients} clients: seconds to an answer, median": statistics.median(results.seconds),
        f"{clients} clients: seconds to an answer, 99 of 100": float(np.quantile(results.seconds, 0.99)),
        f"{clients} clients: memory of the server, MB, second half / first": (
            statistics.mean(memory[middle:]) / statistics.mean(memory[:middle])
        ),
        f"{clients} clients: memory of the server at the end, MB": memory[-1],
    }
