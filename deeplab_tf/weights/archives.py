"""Checkpoint archives: unpacking them safely, and finding the one checkpoint of a folder."""

import glob
import gzip
import os
import pathlib
import re
import tarfile
import typing
import zlib
from collections.abc import Sequence

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError

MAX_UNPACKED = 4 << 30  # bytes; the largest released archive unpacks to about half a gigabyte
_CHUNK = 1 << 18  # bytes
_MOST_MEMBERS = 10_000
_DEEPEST = 32  # folders; those of a released archive are one deep
_LARGEST_HEADER = 1 << 20  # bytes of what describes a member, such as a long name; they are read into memory
_DESCRIBING = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
# Bytes of tar that even an empty member takes. They are counted, so that a bomb of empty files is noticed too.
_HEADER = 512


class _Member(tarfile.TarInfo):
    """A member whose sizes were looked at before anything is read by them."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        """Returns the member of a header's bytes; tarfile.ReadError where it says an absurd size."""
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _DESCRIBING and member.size > _LARGEST_HEADER):
            raise tarfile.ReadError(f"a header of {member.size} bytes")
        return member


def unpack(archive: str | os.PathLike[str], target: str | os.PathLike[str]) -> pathlib.Path:
    """Unpacks a .tar.gz into the new (or empty) folder `target` and returns that folder; on failure nothing is left.

    Members that could leave the folder are refused: absolute names, "..", links with either, devices.

    Raises:
      DeepLabError: such a member, a damaged archive, an empty one, more than MAX_UNPACKED bytes, or a full disk.
    """
    archive = files.path(archive)
    target = pathlib.Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DeepLabError(
            f"cannot unpack {archive}: {target} exists and is not empty; remove it or name another folder"
        )
    cure = f"make room for what is in {archive}, or choose another"
    try:
        with files.growing(target, cure=cure, durable=False) as folder:
            _extract_named(archive, folder)
    except files.UnwritableError:
        # Another process may have unpacked it first. Then the folder is complete: folders appear only when whole.
        if not (target.is_dir() and any(target.iterdir())):
            raise
    return target


def _extract_named(archive: files.AnyPath, folder: files.AnyPath) -> None:
    """Extracts the archive; errors name archive and member."""
    try:
        _extract(archive, folder)
    except tarfile.FilterError as error:
        raise DeepLabError(f"{archive}: refused member {error.tarinfo.name!r}: {error}") from None
    # A hard link to what is not there is a KeyError, one to itself a RecursionError.
    except (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError, LookupError, RecursionError) as error:
        raise DeepLabError(f"{archive} is not a whole .tar.gz archive ({error}); delete it and get it again") from None


def _opened(archive: files.AnyPath) -> typing.IO[bytes]:
    try:
        return archive.open("rb")
    except OSError as error:
        raise DeepLabError(f"{archive}: cannot be read ({error.strerror or error}); expected a .tar.gz") from None


def _extract(archive: files.AnyPath, folder: files.AnyPath) -> None:
    total = 0
    count = 0
    # Read as a stream, the archive tells a member's size before a byte of it is written.
    with (
        _opened(archive) as content,
        gzip.open(content) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar,
    ):
        for number, member in enumerate(tar):
            if number >= _MOST_MEMBERS:
                raise DeepLabError(f"{archive} has more than {_MOST_MEMBERS} members; expected a checkpoint archive")
            _require_inside(member, archive)
            total += _HEADER + member.size
            count += member.isfile()
            _require_small(total, archive)
            tar.extract(member, folder, filter="data")
        # gzip compares its checksum only at the very end, which lies behind the last member.
        while chunk := stream.read(_CHUNK):
            total += len(chunk)
            _require_small(total, archive)
    if not count:
        raise DeepLabError(f"{archive} holds no files; expected a checkpoint: <prefix>.index and <prefix>.data-*")


def _require_small(total: int, archive: files.AnyPath) -> None:
    if total > MAX_UNPACKED:
        raise DeepLabError(f"{archive} unpacks to more than {MAX_UNPACKED} bytes; expected a checkpoint archive")


def _require_inside(member: tarfile.TarInfo, archive: files.AnyPath) -> None:
    """Refuses a member that could be written outside of the folder.

    It is stricter than tarfile's data filter, which resolves links and has been outwitted: no ".." at all, and no
    absolute name.
    """
    if member.name.count("/") >= _DEEPEST or "\0" in member.name + member.linkname:
        raise DeepLabError(f"{archive}: member {member.name[:80]!r} lies too deep, or has a zero in its name")
    names = [("name", member.name)]
    if member.islnk() or member.issym():
        names.append(("link", member.linkname))
    for what, name in names:
        if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or re.match(r"[A-Za-z]:", name):
            where = "" if what == "name" else f" links to {name!r},"
            raise DeepLabError(f"{archive}: member {member.name!r}{where} outside of the folder; nothing was unpacked")
    if not (member.isfile() or member.isdir() or member.islnk() or member.issym()):
        raise DeepLabError(f"{archive}: member {member.name!r} is a device or a pipe; nothing was unpacked")


def find_prefix(folder: str | os.PathLike[str]) -> str:
    """Returns the prefix (path without .index) of the one TF1 checkpoint in `folder` or below.

    If there are several, the state file `checkpoint` names it, else it is the one with the highest step of
    model.ckpt-<step> in one folder.

    Raises:
      DeepLabError: there is none, its data is missing, or there are several and nothing names one.
    """
    folder = files.path(folder)
    if not folder.is_dir():
        raise DeepLabError(
            f"{folder}: expected a folder with a checkpoint, found {'a file' if folder.exists() else 'nothing'}"
        )
    # macOS writes a ._<name> beside every file that it archives.
    indices = (path for path in folder.rglob("*.index") if path.is_file() and not path.name.startswith("._"))
    prefixes = sorted(path.with_suffix("") for path in indices)
    if not prefixes:
        raise DeepLabError(f"{folder}: no checkpoint; expected <prefix>.index and <prefix>.data-*{_what_else(folder)}")
    prefix = prefixes[0] if len(prefixes) == 1 else _named_by_state(folder, prefixes) or _latest(prefixes)
    if prefix is None:
        names = ", ".join(str(p.relative_to(folder)) for p in prefixes)
        raise DeepLabError(f"{folder}: several checkpoints ({names}); give the prefix of one")
    if not any(prefix.parent.glob(f"{glob.escape(prefix.name)}.data-*")):
        raise DeepLabError(f"{prefix}.index has no {prefix.name}.data-* beside it; copy these files too")
    return str(prefix)


def _what_else(folder: files.AnyPath) -> str:
    frozen = next(iter(sorted(folder.rglob("*.pb"))), None)
    return f"; there is a frozen graph: give {frozen} itself" if frozen else ""


def _named_by_state(folder: files.AnyPath, prefixes: Sequence[files.AnyPath]) -> files.AnyPath | None:
    """Returns the prefix that the state file `checkpoint` of the highest folder names, or None.

    The paths in it are often absolute ones of another machine: then only the name counts.
    """
    named: dict[int, set[files.AnyPath]] = {}  # by depth
    for state in folder.rglob("checkpoint"):
        match = state.is_file() and re.search(r'^model_checkpoint_path:\s*"([^"]+)"', _text(state), re.MULTILINE)
        if match:
            candidates = {state.parent / match[1], state.parent / pathlib.PurePath(match[1]).name}
            named.setdefault(len(state.parts), set()).update(candidates & set(prefixes))
    # A training run has another state file below its own, in its folder best.
    highest = named[min(named)] if named else set[files.AnyPath]()
    return highest.pop() if len(highest) == 1 else None


def _text(path: files.AnyPath) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _latest(prefixes: Sequence[files.AnyPath]) -> files.AnyPath | None:
    """Returns the prefix with the highest step, or None: they differ in more than their -<step>."""
    steps: dict[int, files.AnyPath] = {}
    models: set[str] = set()
    for prefix in prefixes:
        match = re.fullmatch(r"(.*)-([0-9]{1,18})", str(prefix))
        if not match:
            return None
        models.add(match[1])
        steps[int(match[2])] = prefix
    return steps[max(steps)] if len(models) == 1 else None
