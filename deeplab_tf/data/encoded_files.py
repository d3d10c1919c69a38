"""The bytes of an image or label file, and the words for those that cannot be read or decoded."""

import PIL.Image

from deeplab_tf import files
from deeplab_tf.data.faults import FileError
from deeplab_tf.errors import first_line


def read_file(file: str, what: str) -> bytes:
    """Returns the bytes of a file that is an image or a label (`what`).

    Raises:
      FileError: the file is missing or cannot be read.
    """
    try:
        return files.path(file).read_bytes()
    except FileNotFoundError:
        raise FileError(f"{file}: missing {what}", f"missing {what}") from None
    except OSError as error:
        raise FileError(f"{file}: the {what} cannot be read ({error.strerror})", f"unreadable {what}") from None


def undecoded(error: Exception, content: bytes) -> str:
    """Returns what is wrong with `content`, whose decoding raised `error`."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"begins with {content[:8]!r}" if content else "0 bytes"
    return first_line(error)
