"""What the photographs of a whole data set are: their bands, their dtype and the range of their values."""

import dataclasses
import io
import math
from collections.abc import Sequence

import numpy as np
import PIL.Image

from deeplab_tf.catalog.image_facts import RGB, ImageFacts, are_limits, default_shown, describe_pixels
from deeplab_tf.data.encoded_files import read_file
from deeplab_tf.data.faults import FileError
from deeplab_tf.data.pairs import Pair
from deeplab_tf.data.photographs import NO_CONTRAST, OTHER_BANDS, PhotographOptions, kind_of
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import FORMATS, PILLOW_ERRORS
from deeplab_tf.ops.photograph_files import open_photograph
from deeplab_tf.ops.photographs import Reading, widened
from deeplab_tf.ops.value_range import scaled

_SAMPLE = 64  # photographs that the range of a set is found by
_SAMPLED_PIXELS = 16_384  # of each of them, about
_PERCENTILES = (0.1, 99.9)


def described(image: ImageFacts) -> str:
    """Returns a line for the user: what the photographs are, and which values become 0 and 255."""
    ranges = ", ".join(f"{low:g} to {high:g}" for low, high in image.range)
    return f"Photographs: {image.describe()}; values of {ranges} become 0 to 255"


def _label_size(pair: Pair) -> tuple[int, int] | None:
    """Returns height and width of a pair's label, if it is a picture."""
    try:
        with PIL.Image.open(io.BytesIO(read_file(pair.label or "", "label")), formats=FORMATS) as label:
            return label.height, label.width
    except (DeepLabError, *PILLOW_ERRORS):
        return None


def find_image_facts(pairs: Sequence[Pair], options: PhotographOptions, known: ImageFacts | None) -> ImageFacts | None:
    """Returns what the photographs of a data set are, by a sample of them, the same each time; None: 8-bit RGB.

    The range is that between the 0.1 and the 99.9 percentile of the sampled values: of all bands together where there
    are three or one, else of each. 8-bit bands keep 0 to 255.

    Args:
      pairs: those of the split that is trained on.
      options: what the user says; wins over what is found.
      known: what the dataset.json of the source says.

    Raises:
      DeepLabError: the photographs are of several kinds, have no contrast, or options contradict them.
    """
    channels = len(options.bands) or (known.channels if known else None)
    kinds: dict[tuple[int, str], str] = {}
    values: list[np.ndarray] = []
    for pair in pairs[:: max(1, math.ceil(len(pairs) / _SAMPLE))]:
        try:
            content = read_file(pair.image, "image")
            size = None if content[:3] == b"\xff\xd8\xff" else _label_size(pair)
            photograph = open_photograph(content, Reading(channels, size, options.max_pixels))
            kind = kind_of(photograph)
            kinds.setdefault(kind, pair.image)
            asked = options.value_range or options.bands or options.shown
            if photograph.is_rgb and not asked and known is None:
                continue  # nothing more is asked of most sets
            pixels = widened(photograph.pixels(), kind[0])
        except (DeepLabError, *PILLOW_ERRORS):
            continue  # reported, by its name, when it is packed
        step = max(1, math.isqrt(pixels.shape[0] * pixels.shape[1] // _SAMPLED_PIXELS))
        values.append(pixels[::step, ::step].reshape(-1, kind[0]).astype(np.float32))
    return _facts_of(kinds, values, options, known)


def _facts_of(
    kinds: dict[tuple[int, str], str],
    values: list[np.ndarray],
    options: PhotographOptions,
    known: ImageFacts | None,
) -> ImageFacts | None:
    if not kinds:
        return known
    if len(kinds) > 1:
        listed = "; ".join(f"{file}: {describe_pixels(*kind)}" for kind, file in kinds.items())
        raise FileError(
            f"photographs of several kinds in one data set ({listed}); expected one kind, convert the others",
            OTHER_BANDS,
        )
    (channels, dtype), file = next(iter(kinds.items()))
    if known and (known.channels, known.dtype) != (channels, dtype):
        raise DeepLabError(f"{file}: {describe_pixels(channels, dtype)}, but dataset.json says {known.describe()}")
    if options.bands and len(options.bands) != channels:
        names = ",".join(options.bands)
        found = describe_pixels(channels, dtype)
        raise DeepLabError(f"--bands={names}: {len(options.bands)} names; {file} has {found}; expected a name a band")
    default = known.shown if known else default_shown(channels)
    shown = options.shown or default
    wanted = known or options.value_range or options.bands or shown != default
    if (channels, dtype) == (RGB, "uint8") and not wanted:
        return None
    if len(shown) != RGB or not all(0 <= band < channels for band in shown):
        listed = ",".join(map(str, shown))
        raise DeepLabError(f"--shown_bands={listed}: expected three bands of 0..{channels - 1}, as in 0,1,2")
    sample = np.concatenate(values)
    if shown != default and np.array_equal(sample[:, list(shown)], sample[:, list(default)], equal_nan=True):
        listed = ",".join(map(str, shown))
        raise DeepLabError(
            f"--shown_bands={listed} would do nothing: the bands of the photographs are the same picture, as in grey "
            "ones; leave it out"
        )
    limits = _limits(options, known, dtype, sample)
    facts = ImageFacts(channels, dtype, limits, (0.0,) * channels, options.bands or (known.bands if known else ()))
    mean = np.nan_to_num(scaled(facts, sample).mean(axis=0, dtype=np.float64))
    mean = known.mean if known and limits == known.range else tuple(round(float(value), 3) for value in mean)
    return dataclasses.replace(facts, mean=mean, shown=(shown[0], shown[1], shown[2]))


def _limits(
    options: PhotographOptions, known: ImageFacts | None, dtype: str, sample: np.ndarray
) -> tuple[tuple[float, float], ...]:
    channels = sample.shape[-1]
    if options.value_range:
        numbers = options.value_range
        pairs = tuple(zip(numbers[::2], numbers[1::2], strict=False))
        if len(numbers) not in (2, 2 * channels) or not are_limits(pairs):
            given = ",".join(f"{number:g}" for number in numbers)
            expected = f"low,high with low below high, for all bands or for each of the {channels}"
            raise DeepLabError(f"--value_range={given}: expected {expected}")
        return pairs
    if known:
        return known.range
    if dtype == "uint8":
        return ((0.0, 255.0),)
    columns = [sample.ravel()] if channels <= RGB else list(sample.T)
    pairs = []
    for number, column in enumerate(columns):
        finite = column[np.isfinite(column)]
        low, high = np.percentile(finite, _PERCENTILES) if finite.size else (0.0, 0.0)
        pair = (float(f"{low:.6g}"), float(f"{high:.6g}"))
        if not are_limits([pair]):
            band = f"band {number} of " if len(columns) > 1 else ""
            raise FileError(
                f"{band}the photographs have no contrast: nearly all of their values are {low:g}; leave the band out, "
                "or give --value_range=low,high",
                NO_CONTRAST,
            )
        pairs.append(pair)
    return tuple(pairs)
