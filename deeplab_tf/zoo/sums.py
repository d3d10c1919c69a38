"""The sums of archives: those that are published for them, and those that are recorded beside them."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import tarfile
from typing import Literal

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError

Kind = Literal["gzip", "zip", "tar"]
_CHUNK = 1 << 18  # bytes
_BEGINNINGS = {"gzip": b"\x1f\x8b", "zip": b"PK\x03\x04"}
_SHOWN = {"gzip": "a .tar.gz archive", "zip": "a .zip archive", "tar": "a .tar archive"}


@dataclasses.dataclass(frozen=True)
class Published:
    """What is published about an archive.

    Attributes:
      digest: its sum, in hexadecimal digits; None: nobody has published one.
      algorithm: of the sum: sha256, or what hashlib calls another.
      kind: of archive.
    """

    digest: str | None = None
    algorithm: str = "sha256"
    kind: Kind = "gzip"

    @property
    def sha256(self) -> str | None:
        """The sum, if it is a SHA-256."""
        return self.digest.lower() if self.digest and self.algorithm == "sha256" else None

    def fault(self, path: pathlib.Path, sha256: str) -> str | None:
        """Returns what is wrong with the sum of a file whose SHA-256 is known; None: nothing is."""
        if not self.digest:
            return None
        actual = sha256 if self.algorithm == "sha256" else hash_of(path, self.algorithm).hexdigest()
        return None if actual == self.digest.lower() else f"{self.algorithm} is {actual}, expected {self.digest}"


def hash_of(path: pathlib.Path, algorithm: str = "sha256") -> "hashlib._Hash":
    """Returns the digest of a file, to which more can be added."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest


def require_kind(path: pathlib.Path, kind: Kind, cure: str) -> None:
    """Raises DeepLabError where a file does not begin as an archive of a kind does."""
    with path.open("rb") as stream:
        start = stream.read(tarfile.BLOCKSIZE)
    if kind == "tar":
        try:
            tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            good = False
        else:
            good = True
    else:
        good = start.startswith(_BEGINNINGS[kind])
    if not good:
        raise DeepLabError(f"{path}: expected {_SHOWN[kind]}, found a file that begins with {start[:8]!r}; {cure}")


def verify(path: str | os.PathLike, *, sha256: str | None = None, published: Published | None = None) -> str:
    """Returns the sha256 of an archive on disk, and records it beside an archive that has no record.

    Args:
      path: of the archive.
      sha256: what it must be; None: what is recorded.
      published: what is published of the archive, where that is more than a sha256.

    Raises:
      DeepLabError: the sum is not the published (or the recorded) one, or the file is no archive of that kind.
    """
    path = pathlib.Path(path)
    published = published or Published(sha256)
    known = recorded(path)
    require_kind(path, published.kind, "delete it")
    actual = hash_of(path).hexdigest()
    # What was compared with another sum before it was recorded needs no second look.
    fault = published.fault(path, actual) if published.sha256 or not known else None
    where = "the published sum"
    if not published.sha256 and known and actual != known:
        fault, where = f"sha256 is {actual}, expected {known}", f"recorded in {record_path(path).name}"
    if fault:
        raise DeepLabError(f"{path}: {fault} ({where}); delete the file and its record")
    if known != actual:
        # A shared cache may be read-only: then the file is verified, and not recorded.
        with contextlib.suppress(OSError):
            record(path, actual)
    return actual


def recorded(path: str | os.PathLike) -> str | None:
    """Returns the sha256 recorded beside the archive `path`, or None; a damaged record is a DeepLabError."""
    place = record_path(pathlib.Path(path))
    if not place.is_file():
        return None
    match = re.match(r"[0-9a-fA-F]{64}\b", place.read_text(encoding="ascii", errors="replace"))
    if not match:
        raise DeepLabError(f"{place}: expected 64 hexadecimal digits and a file name, as sha256sum writes; delete it")
    return match.group().lower()


def record_path(path: pathlib.Path) -> pathlib.Path:
    """Returns where the sha256 of an archive is recorded."""
    return path.with_name(f"{path.name}.sha256")


def record(path: pathlib.Path, digest: str) -> None:
    """Records the sha256 of an archive beside it."""
    with files.written(record_path(path)) as file:
        file.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
