"""Data sets fetched from their owners: licence first, then the archive, resumed and compared with its sum, then files.

Of an archive only plain files below its data folder are written: no links, no devices, nothing beside the folder.
"""

import contextlib
import os
import pathlib
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from typing import IO

from deeplab_tf import files
from deeplab_tf.catalog.downloads import Download
from deeplab_tf.errors import DeepLabError
from deeplab_tf.zoo import download
from deeplab_tf.zoo.sums import Published

MOST_UNPACKED = 6 << 30  # bytes; PASCAL VOC has 2 GB
_MOST_FILES = 200_000  # PASCAL VOC has 40,000 in all
_LONGEST = 255  # characters of a name
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, LookupError, NotImplementedError, RuntimeError)
# The name, the size and the content of a file of an archive.
_Entry = tuple[str, int, Callable[[], IO[bytes]]]


def _tar_entries(archive: pathlib.Path) -> Generator[_Entry, None, None]:
    with tarfile.open(archive, "r|*") as tar:  # a stream: a member's size is known before a byte of it is read
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, member.size, lambda content=content: content


def _zip_entries(archive: pathlib.Path) -> Generator[_Entry, None, None]:
    with zipfile.ZipFile(archive) as container:
        for member in container.infolist():
            if not member.is_dir():
                yield member.filename, member.file_size, lambda member=member: container.open(member)


def _place(name: str, wanted: Download, archive: pathlib.Path) -> str | None:
    """Returns where a file of the archive belongs below the data folder; None: it is not wanted.

    Raises:
      DeepLabError: its name leads elsewhere, or is no name.
    """
    parts = name.removeprefix("./").split("/")
    odd = re.search(r"[\\\0:]", name) or name.startswith("/") or any(part in ("", ".", "..") for part in parts)
    if odd or max(map(len, parts)) > _LONGEST:
        raise DeepLabError(f"{archive}: has a file {name[:80]!r}, which leads out of the folder; nothing was unpacked")
    inside = "/".join(parts).removeprefix(f"{wanted.inside}/")
    below = len(inside.split("/")) < len(parts)
    return inside if below and any(inside == part or inside.startswith(f"{part}/") for part in wanted.parts) else None


def _write(content: IO[bytes], size: int, file: pathlib.Path) -> None:
    """Writes a file of `size` bytes; EOFError where its archive holds fewer or more."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with content, file.open("xb") as stream:
        left = size
        while left and (block := content.read(min(left, 1 << 20))):
            stream.write(block)
            left -= len(block)
        if left or content.read(1):
            raise EOFError(f"{file.name} is not of {size} bytes")


def unpack(archive: pathlib.Path, wanted: Download, target: str | os.PathLike[str]) -> int:
    """Unpacks the data folder of an archive to the new folder `target`, all of it or nothing.

    Returns:
      the number of files.

    Raises:
      DeepLabError: the archive is damaged, holds other things, names that lead elsewhere, or too much; or the folder
        cannot be written.
    """
    entries = _zip_entries(archive) if wanted.kind == "zip" else _tar_entries(archive)
    count = total = 0
    with files.growing(target, durable=False, local=True) as folder:
        try:
            with contextlib.closing(entries):
                for name, size, content in entries:
                    place = _place(name, wanted, archive)
                    if place is None:
                        continue
                    count, total = count + 1, total + size
                    if count > _MOST_FILES or total > MOST_UNPACKED:
                        raise DeepLabError(f"{archive}: unpacks to more than {MOST_UNPACKED >> 30} GB; expected less")
                    _write(content(), size, pathlib.Path(folder) / place)
        except FileExistsError as error:
            raise DeepLabError(f"{archive}: has {os.path.basename(error.filename)!r} twice; delete it") from None
        except _DAMAGE as error:
            raise DeepLabError(f"{archive}: is damaged ({error}); delete it, and it is fetched again") from None
        missing = [part for part in wanted.parts if not (pathlib.Path(folder) / part).exists()]
        if missing:
            raise DeepLabError(f"{archive}: holds no {wanted.inside}/{missing[0]}; expected {wanted.title}")
    return count


def fetch_data(wanted: Download, target: str | os.PathLike[str], *, tell: Callable[[str], object]) -> None:
    """Makes `target` the folder of a data set, unless it is there.

    The archive stays in the cache ($DEEPLAB_TF_CACHE, in datasets/); an interrupted download is continued, and what was
    put there by hand is taken after a look at its sum.

    Args:
      wanted: the data set.
      target: the folder to make.
      tell: gets lines for the user; the licence comes before anything is asked for.

    Raises:
      DeepLabError: no network, a wrong sum, a damaged archive, or a folder that cannot be written.
    """
    place = files.path(target)
    if place.is_dir() and any(place.iterdir()):
        tell(f"{wanted.title}: {place} is there already and is used")
        return
    tell(f"{wanted.title}: {wanted.licence}")
    archive = download.cache_folder() / "datasets" / wanted.file
    published = Published(wanted.digest, wanted.algorithm, wanted.kind)
    download.fetch(wanted.url, archive, published=published, most_bytes=wanted.most_bytes)
    tell(f"{wanted.title}: unpacking {archive}")
    tell(f"{wanted.title}: {unpack(archive, wanted, place):,} files in {place}; the archive can be deleted")
