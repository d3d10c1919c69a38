"""Checkpoint archives on disk: unpacking that stays inside its folder, and the one checkpoint of a folder."""

import glob
import gzip
import os
import pathlib
import re
import tarfile
import zlib
from collections.abc import Sequence

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError

MAX_UNPACKED = 4 << 30  # bytes; the largest released archive unpacks to about half a gigabyte
_CHUNK = 1 << 18  # bytes
_HEADER = 512  # bytes of tar that even an empty member takes; counted, so that a bomb of empty files ends too


def unpack(archive: str | os.PathLike, target: str | os.PathLike) -> pathlib.Path:
    """Unpacks a .tar.gz into the new (or empty) folder `target` and returns it; what fails leaves nothing behind.

    Members that could leave the folder are refused: absolute names, "..", links with either, devices.

    Raises:
      DeepLabError: such a member, a damaged archive, an empty one, more than MAX_UNPACKED bytes, a full disk.
    """
    archive, target = files.path(archive), pathlib.Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DeepLabError(
            f"cannot unpack {archive}: {target} exists and is not empty; remove it or name another folder"
        )
    cure = f"make room for what is in {archive}, or choose another"
    try:
        with files.growing(target, cure=cure, durable=False) as folder:
            _extract_named(archive, folder)
    except files.UnwritableError:
        # Another process was faster? Its folder is complete: folders only come into being whole.
        if not (target.is_dir() and any(target.iterdir())):
            raise
    return target


def _extract_named(archive: files.AnyPath, folder: pathlib.Path):
    """Unpacks; the errors name archive and member."""
    try:
        _extract(archive, folder)
    except tarfile.FilterError as error:
        raise DeepLabError(f"{archive}: refused member {error.tarinfo.name!r}: {error}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError) as error:
        raise DeepLabError(f"{archive} is not a whole .tar.gz archive ({error}); delete it and get it again") from None


def _opened(archive: files.AnyPath):
    try:
        return archive.open("rb")
    except OSError as error:
        raise DeepLabError(f"{archive}: cannot be read ({error.strerror or error}); expected a .tar.gz") from None


def _extract(archive: files.AnyPath, folder: pathlib.Path):
    total = found = 0
    # Read as a stream, so that the sizes are summed before a byte of a member is written.
    with _opened(archive) as content, gzip.open(content) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            _require_inside(member, archive)
            total += _HEADER + member.size
            found += member.isfile()
            _require_small(total, archive)
            tar.extract(member, folder, filter="data")
        while chunk := stream.read(_CHUNK):  # gzip compares its checksum only at the very end
            total += len(chunk)
            _require_small(total, archive)
    if not found:
        raise DeepLabError(f"{archive} holds no files; expected a checkpoint: <prefix>.index and <prefix>.data-*")


def _require_small(total: int, archive: files.AnyPath):
    if total > MAX_UNPACKED:
        raise DeepLabError(f"{archive} unpacks to more than {MAX_UNPACKED} bytes; expected a checkpoint archive")


def _require_inside(member: tarfile.TarInfo, archive: files.AnyPath):
    """Stricter than tarfile's data filter, whose resolving of links has been outwitted: no ".." at all, no absolute."""
    names = [("name", member.name)]
    if member.islnk() or member.issym():
        names.append(("link", member.linkname))
    for what, name in names:
        if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or re.match(r"[A-Za-z]:", name):
            where = "" if what == "name" else f" links to {name!r},"
            raise DeepLabError(f"{archive}: member {member.name!r}{where} outside of the folder; nothing was unpacked")
    if not (member.isfile() or member.isdir() or member.islnk() or member.issym()):
        raise DeepLabError(f"{archive}: member {member.name!r} is a device or a pipe; nothing was unpacked")


def find_prefix(folder: str | os.PathLike) -> str:
    """Returns the prefix (path without .index) of the one TF1 checkpoint in `folder` or below.

    Of several, the state file `checkpoint` decides, else the highest step of model.ckpt-<step> beside one another.

    Raises:
      DeepLabError: there is none, its data is missing, or nothing says which of several is meant.
    """
    folder = files.path(folder)
    if not folder.is_dir():
        raise DeepLabError(
            f"{folder}: expected a folder with a checkpoint, found {'a file' if folder.exists() else 'nothing'}"
        )
    # macOS writes a ._<name> beside every file that it archives.
    found = (path for path in folder.rglob("*.index") if path.is_file() and not path.name.startswith("._"))
    prefixes = sorted(path.with_suffix("") for path in found)
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
    """The prefix that the state file names. Its paths are often absolute ones of another machine: the name counts."""
    named: dict[int, set[files.AnyPath]] = {}
    for state in folder.rglob("checkpoint"):
        match = state.is_file() and re.search(r'^model_checkpoint_path:\s*"([^"]+)"', _text(state), re.MULTILINE)
        if match:
            meant = {state.parent / match[1], state.parent / pathlib.PurePath(match[1]).name}
            named.setdefault(len(state.parts), set()).update(meant & set(prefixes))
    # That of the folder itself before those below: a training run holds another in its folder best.
    highest = named[min(named)] if named else set()
    return highest.pop() if len(highest) == 1 else None


def _text(path: files.AnyPath) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _latest(prefixes: Sequence[files.AnyPath]) -> files.AnyPath | None:
    """The highest step, where all prefixes are one model's: same folder, same name up to -<step>."""
    steps = {prefix: re.fullmatch(r"(.*)-(\d+)", str(prefix)) for prefix in prefixes}
    if not all(steps.values()) or len({match[1] for match in steps.values()}) != 1:
        return None
    return max(prefixes, key=lambda prefix: int(steps[prefix][2]))
