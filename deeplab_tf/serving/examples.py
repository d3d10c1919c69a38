"""The pictures that the server's page offers to try the model on."""

from collections.abc import Iterator

from deeplab_tf import files
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import EXTENSIONS, jpeg_bytes, png_bytes, read_image, resize_longest

_MOST = 6  # of the user's pictures
_SIDE = 1024  # pixels of their longer side, at most
_DRAWN = ((257, 385), (321, 321), (385, 257))  # height, width


def page_examples(folder: str | None, dataset: str | None) -> Iterator[tuple[str, bytes]]:
    """Yields (name, PNG or JPEG) of the pictures that the page offers.

    Args:
      folder: of the user's pictures. None: shapes are drawn for a model that may know them, and nothing for another.
      dataset: what the model was trained on; None: it does not say.

    Raises:
      DeepLabError: there are no pictures in the folder, or one of them cannot be read.
    """
    if folder is not None:
        yield from _photographs(files.path(folder))
    elif dataset in (None, "shapes"):
        for number, (height, width) in enumerate(_DRAWN):
            image, _ = shapes_example(0, FIRST_INDEX["test"] + number, height=height, width=width)
            yield f"drawn shapes {number + 1}", png_bytes(image)


def _photographs(folder: files.AnyPath) -> Iterator[tuple[str, bytes]]:
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not found:
        raise DeepLabError(f"--examples={folder}: no images in this folder; expected {', '.join(EXTENSIONS)}")
    for file in found[:_MOST]:
        image = read_image(file)
        image = resize_longest(image, _SIDE) if max(image.shape) > _SIDE else image
        yield file.stem, jpeg_bytes(image)
