"""The errors of TensorFlow's file systems as those of the operating system."""

import contextlib
import errno
import os
from collections.abc import Iterator

from deeplab_tf.errors import DeepLabError

# What TensorFlow tells of a disk under codes of its own, in the words of the operating system.
_SHORTAGES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RemoteError(DeepLabError, OSError):
    """A file system of TensorFlow's has failed: no connection, no such bucket."""


@contextlib.contextmanager
def os_errors(place: object = None) -> Iterator[None]:
    """Makes TensorFlow's errors those of the operating system, about `place` where that is given."""
    import tensorflow as tf

    named = () if place is None else (str(place),)
    try:
        yield
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(2, "No such file or directory", *named) from error
    except tf.errors.AlreadyExistsError as error:
        raise FileExistsError(17, "File exists", *named) from error
    except tf.errors.PermissionDeniedError as error:
        raise PermissionError(13, "Permission denied", *named) from error
    except tf.errors.OpError as error:
        for number in _SHORTAGES:
            if os.strerror(number) in error.message:  # its own text names the operation and a temporary file
                raise OSError(number, os.strerror(number), *named) from error
        reason = (error.message.strip() or type(error).__name__).splitlines()[0]
        raise RemoteError(": ".join([*named, reason])) from error
