"""Photographs from files: pictures that Pillow reads, multi-band TIFF and .npy."""

from deeplab_tf.ops.photograph_arrays import open_array
from deeplab_tf.ops.photographs import ANY, Photograph, Reading
from deeplab_tf.ops.pillow_files import open_picture
from deeplab_tf.ops.tiff_files import open_tiff

NPY = b"\x93NUMPY"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_photograph(content: bytes, reading: Reading = ANY) -> Photograph:
    """Returns what the bytes of an image file, a TIFF or a .npy store; its pixels may be decoded later.

    Raises:
      DeepLabError: it has too many pixels, or bands that cannot be told. The message does not name the file.
      PILLOW_ERRORS: it is not an image, or damaged; `pixels` may raise them too.
    """
    if content.startswith(NPY):
        return open_array(content, reading)
    if content.startswith(TIFF):
        return open_tiff(content, reading)
    return open_picture(content, reading)
