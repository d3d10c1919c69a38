"""Lease: keeps a second process out of a folder whose files cannot be locked, as those in a bucket.

Whoever wants the folder writes <folder>/.lease-<id>-<number>.json with its name and the end of its lease, anew every
30 seconds. A lease that is over is passed by: 2 minutes after its holder was killed, or at once where the holder ran on
the same machine and is seen to be dead.

TensorFlow's file systems write no file on the condition that it is not there, as Google's do by a file's generation. So
each process has files of its own, writes first and looks for those of others then: of two, at least one sees the other
and withdraws; both do where they began in the same instant. That holds where a file that is written is listed at once,
as in gs:// and ram://. What a lease cannot prevent: a process that is suspended in the middle of a save for longer than
its lease ends that save when it is woken up, before it finds that the folder is another's; and clocks that differ by
minutes let one in too early.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping

import msgspec

from deeplab_tf.errors import DeepLabError
from deeplab_tf.filesystems.processes import lives, this_machine
from deeplab_tf.filesystems.remote import RemotePath

_PREFIX = ".lease-"
_SECONDS = 120.0
_RENEWED = 30.0  # seconds from one renewal to the next
_SETTLED = 1.0  # seconds within which a file that is being written is whole
_LOOKS = 3
_LISTINGS = 20  # a lease is renewed once in 30 seconds: the second sees what the first missed
_LARGEST = 1 << 16  # bytes of a lease's file; what is longer is none
_FARTHEST = 86_400.0  # seconds from now: an end that is later is a mistake


class HeldError(DeepLabError):
    """Another process has the folder."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who has a folder.

    Attributes:
      host: the name of its machine.
      process: its number there.
      machine: equal for processes that can see one another by their numbers.
      until: the end of the lease, in seconds since 1970.
    """

    host: str
    process: int
    machine: str
    until: float

    @property
    def is_over(self) -> bool:
        """Whether it has the folder no longer: its time is over, or it is a dead process of this machine."""
        now = time.time()
        return not now < self.until < now + _FARTHEST or (self.machine == this_machine() and not lives(self.process))

    def __str__(self) -> str:
        end = datetime.datetime.fromtimestamp(self.until, datetime.timezone.utc)
        return f"process {self.process} on {self.host}, whose lease ends at {end:%Y-%m-%d %H:%M:%S} UTC"


def _parsed(content: bytes) -> Holder | None:
    try:
        found = msgspec.json.decode(content, type=Holder)
    except (ValueError, RecursionError):
        return None
    return found if found.process > 0 else None


def holder_of(folder: RemotePath) -> Holder | None:
    """Returns the process that has a folder now, or None."""
    return next(_live(_claims(folder)), None)


def _claims(folder: RemotePath) -> dict[RemotePath, Holder | None]:
    """Returns what the files of leases say; None for one that is damaged, or being written.

    A file that goes between being listed and being read was renewed by the next: whoever saw neither would take the
    folder for free, so it is listed again.
    """
    found: dict[RemotePath, Holder | None] = {}
    for _ in range(_LISTINGS):
        listed = list(folder.glob(f"{_PREFIX}*.json"))
        found = {}
        for file in listed:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError), file.open("rb") as stream:
                found[file] = _parsed(stream.read(_LARGEST))
        if all(file in found or file.is_dir() for file in listed):
            break
    return found


def _live(claims: Mapping[RemotePath, Holder | None], *, but: str = " ") -> Iterator[Holder]:
    """Yields the leases that are not over, without those whose files begin with `but`."""
    for file, holder in claims.items():
        if holder and not holder.is_over and not file.name.startswith(but):
            yield holder


class Lease:
    """A lease of a folder for this process, which a thread renews from `take` to `release`.

    Args:
      folder: one that is there.
    """

    def __init__(self, folder: RemotePath) -> None:
        self._folder = folder
        self._begin = f"{_PREFIX}{uuid.uuid4().hex[:12]}-"
        self._files: list[RemotePath] = []
        self._number = 0
        self._other: Holder | None = None
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def take(self) -> None:
        """Takes the lease.

        Raises:
          HeldError: another process has it; the message says which, and until when.
          OSError: the file system has failed.
        """
        claims: Mapping[RemotePath, Holder | None] = {}
        for look in range(_LOOKS):
            claims = _claims(self._folder)
            for holder in _live(claims):
                raise HeldError(str(holder))
            if None not in claims.values():
                break
            time.sleep(_SETTLED if look < _LOOKS - 1 else 0)
        try:
            self.require()
        except BaseException:
            with contextlib.suppress(OSError):
                self._remove()
            raise
        for old in claims:
            old.unlink(missing_ok=True)
        self._thread.start()

    def require(self) -> None:
        """Renews the lease. HeldError where another process has it now; OSError where the file system has failed."""
        self._renew()
        if self._other:
            raise HeldError(str(self._other))

    @property
    def is_lost(self) -> bool:
        """Whether another process was seen to have it, when this one was last renewed."""
        return self._other is not None

    def release(self) -> None:
        """Gives the lease back."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # then it ends by itself
            self._remove()

    def _remove(self, kept: int = 0) -> None:
        while len(self._files) > kept:
            self._files[0].unlink(missing_ok=True)
            del self._files[0]

    def _keep(self) -> None:
        while not self._ended.wait(_RENEWED):
            with contextlib.suppress(OSError):  # the next time may do better, and `require` tells
                self._renew()

    def _renew(self) -> None:
        with self._writing:
            mine = Holder(socket.gethostname(), os.getpid(), this_machine(), time.time() + _SECONDS)
            file = self._folder / f"{self._begin}{self._number}.json"
            self._number += 1
            file.write_text(json.dumps(dataclasses.asdict(mine)), encoding="utf-8")
            self._files.append(file)
            self._other = next(_live(_claims(self._folder), but=self._begin), self._other)
            self._remove(kept=1)
