"""The pictures that the server's page offers to try the model on."""

from collections.abc import Iterator

from deeplab_tf import files
from deeplab_tf.config import DataConfig, ServeConfig
from deeplab_tf.data.record_sample import sample_pictures
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import EXTENSIONS, jpeg_bytes, png_bytes, read_image, resize_longest
from deeplab_tf.serving.access import for_this_machine_alone
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.run_options import evaluated_records

_MOST = 6  # of the user's pictures
_SIDE = 1024  # pixels of their longer side, at most
_DRAWN = ((257, 385), (321, 321), (385, 257))  # height, width


def page_examples(options: ServeConfig, card: ModelCard, origin: str | None) -> Iterator[tuple[str, bytes]]:
    """Yields (name, PNG or JPEG) of the pictures that the page offers.

    They are those of `options.examples`, none if that is empty. If it is not set: drawn shapes for a model of these;
    or, where the page is for this machine alone, pictures of the records that the model's run is scored on.

    Args:
      options: of the server.
      card: of the model.
      origin: where the model is: a run's folder, or a checkpoint in it; None: not known.

    Raises:
      DeepLabError: there are no pictures in the folder, or one of them cannot be read.
    """
    if options.examples is not None:
        yield from _photographs(files.path(options.examples)) if options.examples else ()
    elif card.image is not None:
        return
    elif card.dataset == "shapes":
        for number, (height, width) in enumerate(_DRAWN):
            image, _ = shapes_example(0, FIRST_INDEX["test"] + number, height=height, width=width)
            yield f"drawn shapes {number + 1}", png_bytes(image)
    elif origin is not None and for_this_machine_alone(options):
        yield from _of_records(origin)


def _encoded(source: str | bytes, name: str) -> tuple[str, bytes]:
    image = read_image(source, name=name)
    return name, jpeg_bytes(resize_longest(image, _SIDE) if max(image.shape) > _SIDE else image)


def _photographs(folder: files.AnyPath) -> Iterator[tuple[str, bytes]]:
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not found:
        raise DeepLabError(f"--examples={folder}: no images in this folder; expected {', '.join(EXTENSIONS)}")
    for file in found[:_MOST]:
        _, content = _encoded(str(file), str(file))
        yield file.stem, content


def _of_records(origin: str) -> Iterator[tuple[str, bytes]]:
    """Yields pictures of the records of a run, or nothing where they are no longer there."""
    try:
        found = evaluated_records(origin)
        if found is not None:
            name, folder, split = found
            pictures = sample_pictures(DataConfig(dataset=name, dataset_dir=folder), split, _MOST)
            yield from [_encoded(content, name) for name, content in pictures]
    except DeepLabError:
        return
