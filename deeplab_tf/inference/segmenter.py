"""Segmenter: a model by its name or file, called with a picture of any kind."""

import io
import os
import time
from typing import Any, overload

import keras
import numpy as np
import PIL.Image

from deeplab_tf.config import PredictConfig
from deeplab_tf.config.inference import LONGEST_SIDE
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.exported import Runnable, open_runnable, settled_options, with_classes_of
from deeplab_tf.inference.runtime import runtime_predictor
from deeplab_tf.inference.segmented import SegmentedBatch, SegmentedImage
from deeplab_tf.inference.tiles import segment, segment_probabilities
from deeplab_tf.ops.given_pictures import ValueRange, batch_range, picture_of_array, picture_of_pillow
from deeplab_tf.ops.network_pictures import Picture, read_photograph
from deeplab_tf.ops.pictures import Colour
from deeplab_tf.weights.loading import opened

_LARGEST_DOWNLOAD = 1 << 28  # bytes
_SECONDS = 300  # until all of it has come


def _downloaded(address: str) -> bytes:
    """Returns the content of a picture on the web."""
    import requests
    import urllib3

    from deeplab_tf.zoo import transfer

    try:
        with transfer.opened(address) as answer:
            if answer.status_code != requests.codes.ok:
                raise DeepLabError(f"{address}: the server answers {answer.status_code}; expected an image")
            until = time.monotonic() + _SECONDS
            content = b"".join(transfer.blocks(answer, most=_LARGEST_DOWNLOAD, until=until, decoded=True))
    except TimeoutError:
        raise DeepLabError(f"{address}: not sent within {_SECONDS} s; download it, and give the file") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        if isinstance(error, DeepLabError):
            raise
        reason = type(error).__name__
        raise DeepLabError(f"{address}: cannot be fetched ({reason}); download it, and give the file") from None
    return content


def _is_picture(value: Any) -> bool:
    """Returns whether an entry of a list is a picture, and not a row of pixels."""
    return isinstance(value, str | os.PathLike | bytes | PIL.Image.Image | io.IOBase) or np.ndim(value) >= 3


class Segmenter:
    """Segments pictures by a model: files, addresses, Pillow's images and arrays.

    >>> from deeplab_tf.data.shapes import shapes_example
    >>> segmenter = deeplab_tf.Segmenter("shapes_resnet")
    >>> segmenter.class_names[:3]
    ('background', 'circle', 'triangle')
    >>> image, _ = shapes_example(0, index=0, height=97, width=129)
    >>> result = segmenter(image)
    >>> result.classes.shape, sum(result.shares.values()) > 0.999
    ((97, 129), True)
    >>> [file.name for file in result.save("out", kinds=["mask", "coco"])]
    ['image_mask.png', 'image_coco.json']

    Args:
      model: anything that `load` takes: a name of the zoo, a file, a folder; what `deeplab-tf export` has written; or a
        model that is at hand.
      options: resize rule, scales, flips, CRF, runtime, as for `deeplab-tf predict`; None: its defaults. They keep
        the size of pictures like those that a model of `deeplab-tf train` has seen, and bring the longest side to 513
        for the released ones.
      dataset: the catalog's name of the data set whose classes the model tells apart; by default what the weights
        say, or else a guess by the number of classes.
      **changes: fields of ModelConfig, as for `load`.

    Attributes:
      model, config: the network and its configuration.
      class_names, palette: the name and the colour (red, green, blue) of each class, by its index.
      notes: a line for each assumption that opening the model took.

    Raises:
      DeepLabError: as `load`; or the weights are those of a backbone alone.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | keras.Model,
        options: PredictConfig | None = None,
        *,
        dataset: str | None = None,
        **changes: Any,
    ):
        loaded: Runnable
        if isinstance(model, keras.Model):
            loaded = opened(model, changes, dataset=dataset)
        else:
            loaded = with_classes_of(open_runnable(model, changes, dataset=dataset), dataset)
            loaded.card.require_classes("segment with", model)
        self.model, self.config, self.notes = loaded.model, loaded.card.config, loaded.notes
        self.options = options or PredictConfig()
        if self.options.resize == "auto" and self.options.longest_side == LONGEST_SIDE:
            self.options = settled_options(loaded, self.options, ())
        self._image = loaded.card.image
        self.class_names = loaded.card.shown_names
        self.palette: tuple[Colour, ...] = loaded.card.shown_palette

    @overload
    def __call__(self, image: str | os.PathLike[str] | bytes | PIL.Image.Image) -> SegmentedImage: ...
    @overload
    def __call__(self, image: Any, *, value_range: ValueRange | None = None) -> Any: ...
    def __call__(self, image: Any, *, value_range: ValueRange | None = None) -> Any:
        """Returns the classes of a picture, at its own size.

        Args:
          image: a path (of any file system), an address (https://...), the bytes of a file or a file that is open in
            binary mode, an image of Pillow's, or an array [h, w, 3] or [b, h, w, 3], RGB, or as many bands as the model
            reads. Integers are 0..255. Floats up to 1 are 0..1, those that reach 16 or more 0..255; others need
            `value_range`. Or a list of any of these, each of its own size.
          value_range: of an array, the values of black and white, for instance (-1, 1).

        Returns:
          A `SegmentedImage`; of a batch or a list a list of them, a `SegmentedBatch`.

        Raises:
          DeepLabError: the picture cannot be read, is not what the model reads, or its range cannot be told.
        """
        if isinstance(image, list | tuple) and image and _is_picture(image[0]):
            return SegmentedBatch(self(one, value_range=value_range) for one in image)
        if isinstance(image, io.IOBase):
            image = image.read()
        if isinstance(image, str | os.PathLike | bytes | PIL.Image.Image):
            if value_range is not None:
                raise DeepLabError(
                    f"value_range={value_range}: is for arrays; files and images of Pillow's have theirs"
                )
            return self._segmented(self._opened(image))
        array = np.asarray(image)
        bands = self.config.input_channels
        if array.ndim != 4:
            return self._segmented(picture_of_array(array, self._image, bands=bands, value_range=value_range))
        if not len(array):
            raise DeepLabError(f"a batch of shape {array.shape}: holds no images; expected one or more")
        names = [f"image {number} of the batch" for number in range(len(array))]
        # The range is told by the whole batch: a black picture in it does not tell.
        if value_range is None and self._image is None and array.size:
            value_range = batch_range(array)
        return SegmentedBatch(
            self._segmented(picture_of_array(one, self._image, bands=bands, value_range=value_range, name=name))
            for one, name in zip(array, names, strict=True)
        )

    def _opened(self, image: str | os.PathLike[str] | bytes | PIL.Image.Image) -> Picture:
        limit = self.options.max_image_pixels
        if isinstance(image, PIL.Image.Image):
            return picture_of_pillow(image, self._image)
        if isinstance(image, str) and image.lower().startswith(("http://", "https://")):
            return read_photograph(_downloaded(image), self._image, name=image, max_pixels=limit)
        return read_photograph(image, self._image, max_pixels=limit)

    def _segmented(self, picture: Picture) -> SegmentedImage:
        options = self.options
        predictor = runtime_predictor(self.model, options.runtime, pixels=options.longest_side**2)
        classes = segment(predictor, picture.pixels, options)
        return SegmentedImage(
            picture.shown,
            classes,
            self.class_names,
            self.palette,
            picture.notes,
            lambda: segment_probabilities(predictor, picture.pixels, options),
        )
