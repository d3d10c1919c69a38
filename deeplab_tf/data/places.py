"""Files where they are: on this machine, or, where a path has a scheme (gs://bucket/voc), wherever TensorFlow reads.

TensorFlow is imported for such paths alone: worker processes that read local files start fast.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator


def is_remote(path: str | os.PathLike) -> bool:
    """Returns whether a path has a scheme."""
    return "://" in os.fspath(path)


def _gfile():
    import tensorflow as tf

    return tf.io.gfile


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Makes TensorFlow's errors those of the operating system."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(2, "no such file") from error
    except tf.errors.OpError as error:
        raise OSError(5, error.message) from error


def read_bytes(path: str | os.PathLike) -> bytes:
    """Returns the contents of a file; OSError where it cannot be read."""
    if not is_remote(path):
        return pathlib.Path(path).read_bytes()
    with _os_errors(), _gfile().GFile(os.fspath(path), "rb") as stream:
        return stream.read()


def is_file(path: str | os.PathLike) -> bool:
    """Returns whether there is a file."""
    return _gfile().exists(path) and not _gfile().isdir(path) if is_remote(path) else os.path.isfile(path)


def is_dir(path: str | os.PathLike) -> bool:
    """Returns whether there is a folder."""
    return _gfile().isdir(path) if is_remote(path) else os.path.isdir(path)


def find(folder: str | os.PathLike, pattern: str) -> list[str]:
    """Returns the paths <folder>/<pattern>, sorted; the pattern may have * in each of its parts."""
    if not is_remote(folder):
        return [str(path) for path in sorted(pathlib.Path(folder).glob(pattern))]
    return sorted(_gfile().glob(os.path.join(folder, pattern)), key=lambda path: path.split("/"))


def write_text(path: str, text: str) -> None:
    """Writes a file."""
    if not is_remote(path):
        pathlib.Path(path).write_text(text, encoding="utf-8")
        return
    with _gfile().GFile(path, "w") as stream:
        stream.write(text)


def is_taken(folder: str | os.PathLike) -> bool:
    """Returns whether there is something else than an empty folder."""
    if is_remote(folder):
        return _gfile().exists(folder) and not (_gfile().isdir(folder) and not _gfile().listdir(folder))
    path = pathlib.Path(folder)
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


@contextlib.contextmanager
def growing(folder: str | os.PathLike) -> Iterator[str]:
    """Gives a folder to fill beside `folder`, which takes its place if all goes well and vanishes if not.

    (Where there are no folders, as in a bucket, its files take their names one after the other.) OSError or
    tf.errors.OpError where it cannot be written.
    """
    if is_remote(folder):
        parent, name = os.path.split(os.fspath(folder).rstrip("/"))
        temporary, replace, remove = f"{parent}/.{name}.{uuid.uuid4().hex}", _gfile().rename, _remove_remote
        _gfile().makedirs(temporary)
    else:
        target = pathlib.Path(folder).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)
        replace, remove = _replace_local, lambda path: shutil.rmtree(path, ignore_errors=True)
    try:
        yield temporary
        replace(temporary, os.fspath(folder))
    finally:
        remove(temporary)


def _replace_local(source: str, target: str):
    os.chmod(source, 0o755)  # mkdtemp makes it private
    os.replace(source, target)


def _remove_remote(folder: str):
    if _gfile().exists(folder):
        _gfile().rmtree(folder)
