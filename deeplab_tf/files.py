"""Files and folders wherever they are: what a path is, and the one way to write, completely or not at all.

A path is one of this machine, or has a scheme that TensorFlow's file systems know: gs://bucket/run, ram://run. `path`
makes a pathlib.Path of the one and a RemotePath, which has the same methods, of the other. TensorFlow is imported for
paths with a scheme alone.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, TypeAlias, Union

from deeplab_tf.errors import DeepLabError, OptionError
from deeplab_tf.filesystems.leftovers import partial_path, remove

if TYPE_CHECKING:
    from deeplab_tf.filesystems.remote import RemotePath

AnyPath: TypeAlias = Union[pathlib.Path, "RemotePath"]

_BLOCK = 1 << 24  # bytes
_PATTERN = frozenset("*?[\\")  # what TensorFlow takes for a pattern where it looks for the files of a checkpoint
_CURE = "make room, check its rights or choose another"

# ---- paths


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Returns whether a path has a scheme, as gs://bucket has."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fspath(place)) is not None


def is_address(text: str) -> bool:
    """Returns whether a text names what is not in a file system: http(s)://..., rtsp(s)://... or camera:N."""
    return re.match(r"(https?|rtsps?)://[^/]|camera:\d+$", text, re.IGNORECASE) is not None


def clean(text: str) -> str:
    """Returns a path that a user typed as everything else expects it: `~` expanded, no slash at its end."""
    if is_remote(text):
        return _without_dots(re.sub(r"(?<![:/])/+$", "", text))
    text = os.path.expanduser(text)
    return text.rstrip("/") or text[:1]


def _without_dots(text: str) -> str:
    """Returns a path with a scheme without its parts . and .., which in a bucket would be names like any other."""
    scheme, _, rest = text.partition("://")
    if scheme == "file" or not {".", ".."} & set(rest.split("/")):
        return text
    parts: list[str] = []
    for part in rest.split("/"):
        if part == ".." and (not parts or (scheme == "gs" and len(parts) == 1)):
            raise DeepLabError(f"{text}: its .. lead out of {scheme}://{'/'.join(parts)}; expected a path below that")
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return f"{scheme}://{'/'.join(parts)}"


def path(place: str | os.PathLike[str]) -> AnyPath:
    """Returns a path to work with, `~` being expanded. Characters such as * and [ mean themselves.

    DeepLabError for a scheme that TensorFlow has no file system for, and for one with a single slash: pathlib.Path
    makes gs:/x of gs://x, and a folder called gs: is not what is meant.
    """
    text = os.fspath(place)
    if "\0" in text:
        raise DeepLabError(f"{text}: has a character 0, which no file's name has; the list that it is from is damaged")
    if is_remote(text):
        from deeplab_tf.filesystems import remote

        return remote.remote_path(_without_dots(text))
    single = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(/|$)", text)
    if single:
        meant = f"{single[1]}://{'/' if single[1] == 'file' else ''}{text[single.end() :]}"
        raise DeepLabError(
            f"{text}: a scheme is followed by two slashes; expected {meant}, or ./{text} for a folder of this machine "
            "(in Python give such a path as str: pathlib.Path drops a slash)"
        )
    local = pathlib.Path(os.path.expanduser(text))
    # A name that begins with ~ or like a scheme and means itself, ./~draft, must still do so when it comes here again.
    again = local.parts and (local.parts[0].startswith("~") or local.parts[0].endswith(":"))
    return local.absolute() if again else local


def local_path(place: str | os.PathLike[str], *, flag: str, why: str) -> pathlib.Path:
    """Returns a path of this machine; where `place` is elsewhere, DeepLabError with `flag` and `why` that cannot be."""
    text = os.fspath(place).removeprefix("file://")
    if is_remote(text):
        raise DeepLabError(f"{flag}={text}: {why}; give a path of this machine")
    return pathlib.Path(path(text))


def find(folder: str | os.PathLike[str], pattern: str) -> list[str]:
    """Returns the paths <folder>/<pattern>, sorted; the pattern may have * in each of its parts, the folder is none."""
    return [str(entry) for entry in sorted(path(folder).glob(pattern))]


def is_taken(folder: str | os.PathLike[str]) -> bool:
    """Returns whether there is something else than an empty folder."""
    place = path(folder)
    return place.exists() and not (place.is_dir() and not any(place.iterdir()))


@contextlib.contextmanager
def plain(place: str | os.PathLike[str]) -> Iterator[str]:
    """Gives a name for a file, a folder or a checkpoint's prefix that TensorFlow does not take for a pattern.

    Where it looks for the files of a checkpoint, run [2]/model.ckpt is one: then it gets a link of a plain name to
    read, or of what is not on this machine a copy. They go when the context ends.
    """
    meant = path(place)
    if not _PATTERN & set(str(meant)):
        yield str(meant)
        return
    with tempfile.TemporaryDirectory(prefix="deeplab_tf-") as folder:
        for entry in meant.parent.iterdir():
            if entry.name == meant.name or entry.name.startswith(f"{meant.name}."):
                alias = pathlib.Path(folder) / f"plain{entry.name.removeprefix(meant.name)}"
                if isinstance(entry, pathlib.Path):
                    alias.symlink_to(entry.absolute())
                else:
                    copy(entry, alias)
        yield os.path.join(folder, "plain")


# ---- writing


class UnwritableError(OptionError, OSError):
    """A place cannot be written; `errno` and `strerror` are those of the reason."""

    def __str__(self) -> str:
        return self.args[0]


def unwritable(
    place: str | os.PathLike[str], reason: Exception | str, *, flag: str | None = None, cure: str = _CURE
) -> UnwritableError:
    """Returns the one error for a place that cannot be written: it names flag and path, the reason and the cure."""
    words = str(getattr(reason, "strerror", None) or reason)
    error = UnwritableError(f"{f'{flag}=' if flag else ''}{place}: cannot be written ({words}); {cure}")
    error.errno, error.strerror = getattr(reason, "errno", None), words
    return error


@contextlib.contextmanager
def writing(place: str | os.PathLike[str], *, flag: str | None = None, cure: str = _CURE) -> Iterator[None]:
    """Makes the error `unwritable` of what the operating system says against writing to `place`.

    Around what writes below `place`, so that the error names the folder the user gave, not a file in it.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(place, error, flag=flag, cure=cure) from None


@contextlib.contextmanager
def made(folder: AnyPath) -> Iterator[None]:
    """Makes a folder and those above it; afterwards those that it made and that are empty go again."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            for place in new:
                place.rmdir()  # refuses where something was written


@contextlib.contextmanager
def written(
    place: str | os.PathLike[str], *, flag: str | None = None, cure: str = _CURE, durable: bool = True
) -> Iterator[pathlib.Path]:
    """Gives a file of this machine to write, which takes the place of `place` if all goes well and vanishes if not.

    The folder of `place` is made. Whoever reads `place` sees what was there before, or the whole of what is new.

    Args:
      place: the file; where it is not on this machine, what is given is copied there in the end.
      flag: what named it, for the error: --output.
      cure: what the error advises.
      durable: wait until the disk has it, so that it is whole after a loss of power too. It takes a while: not for
        pictures by the thousand that can be made again.

    Raises:
      UnwritableError: it cannot be written.
    """
    target = path(place)
    with writing(target, flag=flag, cure=cure), contextlib.ExitStack() as stack:
        stack.enter_context(made(target.parent))
        near = partial_path(target.parent, target.suffix)
        stack.callback(remove, near)
        # What forbids it is told before the work: a folder there, a name that is too long, no right.
        with contextlib.suppress(FileNotFoundError):
            target.stat()
        if target.is_dir():
            raise IsADirectoryError(21, "Is a directory", str(target))
        near.open("wb").close()
        if isinstance(near, pathlib.Path):
            yield near
            if durable:
                flush(near)
        else:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="deeplab_tf-"))
            here = pathlib.Path(scratch) / target.name
            yield here
            copy(here, near)
        near.replace(target)


@contextlib.contextmanager
def growing(
    place: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    *,
    flag: str | None = None,
    cure: str = _CURE,
    durable: bool = True,
    local: bool = False,
) -> Iterator[AnyPath]:
    """Gives a folder to fill: it becomes `place` if all goes well, and vanishes if not.

    Args:
      place: the folder, which is not there yet or is empty; with `names` it may be there and full.
      names: of files that go from the folder into `place` in this order, each taking the place of its like. The last
        should be what says that all are there. It is read when the folder has been filled.
      flag: as `written`.
      cure: as `written`.
      durable: as `written`.
      local: give a folder of this machine in any case, for what cannot be written elsewhere, and copy it in the end.

    Raises:
      UnwritableError: it cannot be written.
    """
    target = path(place)
    with writing(target, flag=flag, cure=cure), contextlib.ExitStack() as stack:
        home = target.parent if names is None else target
        stack.enter_context(made(home))
        partial = partial_path(home)
        stack.callback(remove, partial)
        partial.mkdir()
        if local and not isinstance(partial, pathlib.Path):
            scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deeplab_tf-")))
            yield scratch
            copy(scratch, partial)
        else:
            yield partial
        for file in partial.rglob("*") if durable and isinstance(partial, pathlib.Path) else ():
            flush(file)
        if names is None:
            move(partial, target)
        for name in names or ():
            move(partial / name, target / name)


def move(source: AnyPath, target: AnyPath) -> None:
    """Gives what is whole the name that it is looked for by, in one step; in a bucket, a folder's files one by one."""
    if not isinstance(source, pathlib.Path) and source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for entry in source.iterdir():
            move(entry, target / entry.name)
    else:
        source.replace(target)


def copy(source: AnyPath, target: AnyPath) -> None:
    """Copies a file, or a folder with what is in it."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for entry in source.iterdir():
            copy(entry, target / entry.name)
    else:
        with source.open("rb") as old, target.open("wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)


def allocate(stream: IO[bytes], size: int) -> None:
    """Makes the disk reserve all bytes of an open file. OSError where it has no room for them.

    For what is memory-mapped afterwards: without it a full disk does not fail a write, but ends the process (SIGBUS).
    """
    try:
        os.posix_fallocate(stream.fileno(), 0, size)
    except AttributeError:  # macOS and Windows
        reserved = False
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        reserved = False  # the file system does not have it
    else:
        reserved = True
    if not reserved:
        left = size - stream.seek(0, os.SEEK_END)
        while left > 0:
            left -= stream.write(bytes(min(left, _BLOCK)))
        stream.flush()


def flush(file: pathlib.Path) -> None:
    """Waits until the disk has a file."""
    if file.is_file():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
