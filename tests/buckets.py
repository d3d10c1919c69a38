"""A bucket for tests: TensorFlow's gs:// as Google's object store behaves, in the memory of ram://."""

import re
import uuid

import pytest
import tensorflow as tf

from deeplab_tf.filesystems import remote


class Bucket:
    """The functions of tf.io.gfile that `remote` calls. Whoever uses it may write objects and not ask for the bucket.

    Attributes:
      name: the only bucket there is, gs://<name>.
    """

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self.remove = lambda place: tf.io.gfile.remove(self._meant(place))
        self.rmtree = lambda place: tf.io.gfile.rmtree(self._meant(place))
        self.get_registered_schemes = tf.io.gfile.get_registered_schemes

    def _meant(self, place: str) -> str:
        scheme, name, rest = re.fullmatch(r"([^:]*)://([^/]*)/?(.*)", place).groups()
        if scheme != "gs":
            return place
        if not name:
            raise tf.errors.InvalidArgumentError(None, None, f"GCS path doesn't contain a bucket name: {place}")
        if name != self.name:
            raise tf.errors.NotFoundError(None, None, f"the bucket {name} does not exist")
        if not rest:
            raise tf.errors.PermissionDeniedError(None, None, "storage.buckets.get")
        return f"ram://{name}/{rest}"

    def GFile(self, place: str, mode: str) -> tf.io.gfile.GFile:  # noqa: N802 (TensorFlow's name)
        meant = self._meant(place)
        if mode.startswith("w") and tf.io.gfile.exists(meant):
            tf.io.gfile.remove(meant)  # ram:// adds to what is there
        return tf.io.gfile.GFile(meant, mode)

    def stat(self, place: str) -> object:
        meant = self._meant(place)
        if place != meant and not (tf.io.gfile.glob(meant) or tf.io.gfile.glob(f"{meant}/*")):
            raise tf.errors.NotFoundError(None, None, place)  # ram:// takes the beginning of a name for a folder
        return tf.io.gfile.stat(meant)

    def listdir(self, place: str) -> list[str]:
        names = [file.rpartition("/")[2] for file in tf.io.gfile.glob(f"{self._meant(place)}/*")]
        return [f"{name}/" if tf.io.gfile.isdir(f"{self._meant(place)}/{name}") else name for name in names]

    def mkdir(self, place: str) -> None:
        tf.io.gfile.makedirs(self._meant(place))

    def makedirs(self, place: str) -> None:
        self._meant(re.match(r"[^:]*://[^/]*", place).group())  # it asks for all that is above
        self.mkdir(place)

    def rename(self, old: str, new: str, overwrite: bool = False) -> None:
        tf.io.gfile.rename(self._meant(old), self._meant(new), overwrite=overwrite)


@pytest.fixture
def bucket(monkeypatch) -> str:
    """gs://<bucket>, in this process alone."""
    made = Bucket()
    monkeypatch.setattr(remote, "_gfile", lambda: made)
    return f"gs://{made.name}"
