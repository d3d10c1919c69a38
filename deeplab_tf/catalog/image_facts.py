"""ImageFacts: what the photographs of a data set are, where they are not 8-bit RGB.

dataset.json has them under "image", and a model that was trained on such photographs under "image" of its deeplab.json.
"""

import dataclasses
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, cast

from deeplab_tf.errors import DeepLabError, unknown_name

RGB = 3
DTYPES = ("uint8", "uint16", "float32")
MOST_BANDS = 1024
_BYTE = (0.0, 255.0)
_KEYS = ("channels", "dtype", "range", "mean", "bands", "shown")
_MIDDLE = 127.5


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What the stored photographs of a data set are.

    Attributes:
      channels: bands of a photograph as it is read; one of a single band is read as three equal ones.
      dtype: of the stored values: uint8, uint16 or float32.
      range: (low, high) of the stored values, one pair for all bands or one for each; low becomes 0 and high 255.
      mean: of each band on that scale, 0..255.
      bands: their names, or ().
      shown: the bands that a picture shows as red, green and blue.
    """

    channels: int
    dtype: str
    range: tuple[tuple[float, float], ...]
    mean: tuple[float, ...]
    bands: tuple[str, ...] = ()
    shown: tuple[int, int, int] = (0, 1, 2)

    @property
    def is_byte(self) -> bool:
        """Whether the stored values are 0..255 already."""
        return set(self.range) == {_BYTE}

    @property
    def is_png(self) -> bool:
        """Whether records hold the photographs as PNG (or JPEG), and not as the bytes of a .npy file."""
        return self.dtype != "float32" and self.channels in (3, 4)

    def describe(self) -> str:
        """Returns what a photograph must be: "5 bands of uint16 (red, green, ...)"."""
        kind = f"{self.channels} bands of {self.dtype}"
        return f"{kind} ({', '.join(self.bands)})" if self.bands else kind

    def to_json(self) -> dict[str, Any]:
        """Returns the facts as dataset.json and deeplab.json have them; without names of bands they say nothing."""
        values = {
            "channels": self.channels,
            "dtype": self.dtype,
            "range": [list(pair) for pair in self.range],
            "mean": list(self.mean),
            "bands": list(self.bands),
            "shown": list(self.shown),
        }
        return {key: value for key, value in values.items() if key != "bands" or value}

    @classmethod
    def from_json(cls, values: object, source: object) -> "ImageFacts":
        """Returns the facts of the object under "image".

        Args:
          values: the object; `mean` is 127.5 and `shown` [0, 1, 2] where they are not given.
          source: the file, for errors.

        Raises:
          DeepLabError: it is not such an object.
        """

        def require(good: bool, expected: str) -> None:
            if not good:
                raise DeepLabError(f"{source}: image: {expected}")

        require(isinstance(values, Mapping), "expected an object with channels, dtype, range, mean, shown")
        given = cast("Mapping[str, Any]", values)
        for key in given:
            if key not in _KEYS:
                raise unknown_name(f"key under image in {source}", str(key), _KEYS)
        channels: Any = given.get("channels")
        good = type(channels) is int and 1 <= channels <= MOST_BANDS
        require(good, f"channels={channels!r}: expected a number of bands, 1 to {MOST_BANDS}")
        dtype: Any = given.get("dtype")
        require(dtype in DTYPES, f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
        limits: Any = given.get("range")
        expected = "expected [[low, high]] of finite numbers, low below high, one pair for all bands or one a band"
        require(are_limits(limits) and len(limits) in (1, channels), f"range={limits!r}: {expected}")
        mean: Any = given.get("mean", [_MIDDLE] * channels)
        good = _are_numbers(mean, channels) and all(0 <= value <= 255 for value in mean)
        require(good, f"mean={mean!r}: expected {channels} numbers of 0..255")
        bands: Any = given.get("bands", [])
        require(_are_names(bands, channels), f"bands={bands!r}: expected {channels} different names")
        shown: Any = given.get("shown", list(default_shown(channels)))
        good = _are_numbers(shown, RGB) and all(type(band) is int and 0 <= band < channels for band in shown)
        require(good, f"shown={shown!r}: expected three bands of 0..{channels - 1}")
        pairs = tuple((float(low), float(high)) for low, high in limits)
        return cls(channels, dtype, pairs, tuple(map(float, mean)), tuple(bands), tuple(shown))


def default_shown(channels: int) -> tuple[int, int, int]:
    """Returns the bands that are shown where nobody has chosen: the first three, or the only one."""
    return (0, 1, 2) if channels >= RGB else (0, channels - 1, channels - 1)


def _are_numbers(values: Any, count: int) -> bool:
    if not isinstance(values, list | tuple) or len(cast("Sequence[Any]", values)) != count:
        return False
    numbers = cast("Sequence[Any]", values)
    return all(type(value) in (int, float) and math.isfinite(value) for value in numbers)


def _are_names(values: Any, count: int) -> bool:
    """Returns whether `values` are `count` different names, or none."""
    if not isinstance(values, list | tuple):
        return False
    names = cast("Sequence[Any]", values)
    good = len(names) in (0, count) and all(isinstance(name, str) and name for name in names)
    return good and len(set(names)) == len(names)


def _float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def are_limits(pairs: Any) -> bool:
    """Returns whether `pairs` are [low, high] of finite numbers that differ in float32, low first."""
    if not isinstance(pairs, list | tuple) or not pairs:
        return False
    rows = cast("Sequence[Any]", pairs)
    return all(_is_range(pair) for pair in rows)


def _is_range(pair: Any) -> bool:
    if not _are_numbers(pair, 2) or pair[0] < -1e38 or pair[1] > 1e38:
        return False
    return pair[1] > -1e38 and pair[0] < 1e38 and _float32(pair[0]) < _float32(pair[1])


def describe_pixels(channels: int, dtype: object) -> str:
    """Returns what a photograph holds: "5 bands of uint16", "1 band of float32"."""
    return f"{channels} band{'s' if channels != 1 else ''} of {dtype}"


def require_same_bands(image: ImageFacts | None, expected: ImageFacts | None, *, name: str, expected_name: str) -> None:
    """Raises DeepLabError where photographs and what reads them differ in bands or dtype.

    Args:
      image: of the data set called `name`; None: 8-bit RGB.
      expected: of the model called `expected_name`.
      name: of the data set, for the error.
      expected_name: of the model, for the error.
    """
    found, wanted = ((facts.channels, facts.dtype) if facts else (RGB, "uint8") for facts in (image, expected))
    if found != wanted:
        raise DeepLabError(
            f"{name} has photographs of {describe_pixels(*found)}, {expected_name} reads {describe_pixels(*wanted)}; "
            "give the data set that it was trained on, or one of the same bands"
        )
