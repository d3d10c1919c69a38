"""A process that is killed in the middle of its writes, in memory: what it had written is all there is."""

import tensorflow as tf

from deeplab_tf.filesystems import lease, remote

_SAVE = tf.raw_ops.SaveV2


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """TensorFlow's file systems until the process that writes is killed.

    After `changes` of them every further one is `Killed`, those of whoever would clean up too. A rename is a copy and a
    removal, as in a bucket; what is written arrives in two halves; a checkpoint's index comes after its data.

    Attributes:
      done: number of changes so far.
    """

    def __init__(self, monkeypatch, changes: float = float("inf")) -> None:
        self.done = 0
        self._changes = changes
        monkeypatch.setattr(remote, "_gfile", lambda: self)
        monkeypatch.setattr(tf.raw_ops, "SaveV2", self.save)
        monkeypatch.setattr(lease, "lives", lambda process: False)  # this one is, whose leases look like another's

    def revive(self) -> None:
        """Begins another process, which is not killed."""
        self._changes = float("inf")

    def change(self) -> None:
        if self.done >= self._changes:
            raise Killed
        self.done += 1

    def __getattr__(self, name: str):
        return getattr(tf.io.gfile, name)

    def mkdir(self, place: str) -> None:
        self.change()
        tf.io.gfile.mkdir(place)

    def makedirs(self, place: str) -> None:
        self.change()
        tf.io.gfile.makedirs(place)

    def remove(self, place: str) -> None:
        self.change()
        tf.io.gfile.remove(place)

    def rmtree(self, place: str) -> None:
        self.change()
        tf.io.gfile.rmtree(place)

    def rename(self, old: str, new: str, overwrite: bool = False) -> None:
        with tf.io.gfile.GFile(old, "rb") as stream:
            content = stream.read()
        self.change()
        if tf.io.gfile.glob(new):
            tf.io.gfile.remove(new)  # ram:// would add to it
        with tf.io.gfile.GFile(new, "wb") as stream:
            stream.write(content)
        self.remove(old)

    def GFile(self, place: str, mode: str) -> object:  # noqa: N802 (TensorFlow's name)
        return tf.io.gfile.GFile(place, mode) if mode == "rb" else _Written(self, place, mode)

    def save(self, prefix: str, **options) -> None:
        self.change()
        _SAVE(prefix=prefix, **options)
        tf.io.gfile.rename(f"{prefix}.index", f"{prefix}.later")
        self.change()
        tf.io.gfile.rename(f"{prefix}.later", f"{prefix}.index")


class _Written:
    def __init__(self, mortal: Mortal, place: str, mode: str) -> None:
        mortal.change()
        self._mortal = mortal
        self._file = tf.io.gfile.GFile(place, mode)

    def write(self, content: bytes) -> None:
        half = len(content) // 2
        self._file.write(content[:half])
        self._file.flush()
        if content:
            self._mortal.change()
        self._file.write(content[half:])
        self._file.flush()

    def close(self) -> None:
        self._file.close()
