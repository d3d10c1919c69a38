"""Classes at full size from logits at the network's stride, without computing what cannot matter."""

import numpy as np
import tensorflow as tf

from deeplab_tf.ops.resizing import resize_bilinear

_LARGEST_SHARE = 0.4  # of cells that must be computed; beyond it the plain way is as fast
_CHUNK = 1 << 21  # values computed at a time, which stay in the cache
_STRIP_ROWS = 16
_STRIP_VALUES = 1 << 19  # of a strip, at most: two of its maps stay in the cache
# Differences between logits times both are 1 or more, whatever float32 has between 0 and them; each is a float16 too,
# and so is their product with a logit up to 128, since delegates may calculate in that.
_LOGIT_SCALE, _STEEPNESS = np.float32(512), np.float32(32768)


def upsampled_classes(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the classes of bilinearly upsampled logits with aligned corners: argmax(resize_bilinear(logits, size)).

    Between four neighbouring logits every value is a mean of theirs: where one class leads at all four it leads
    throughout, and nothing needs to be interpolated. What is left, the cells on borders, is computed as TensorFlow's
    operation does, in its order.

    Args:
      logits: float32 [b, h, w, classes].
      size: height and width of the result.

    Returns:
      int32 [b, *size].
    """
    stride = _stride(logits.shape[1:3], size)
    return np.stack([_classes(one, size, stride) for one in logits]) if stride else _plain(logits, size)


def _stride(small: tuple[int, int], size: tuple[int, int]) -> int | None:
    """The stride of logits in pixels, or None where it is not a power of two: then the weights are not exact."""
    strides = {(new - 1) // (old - 1) if old > 1 else 0 for old, new in zip(small, size, strict=True)}
    (stride,) = strides if len(strides) == 1 else (0,)
    exact = all((old - 1) * stride + 1 == new for old, new in zip(small, size, strict=True))
    return stride if stride > 1 and exact and stride & (stride - 1) == 0 else None


def _plain(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resize_bilinear(logits, size).numpy().argmax(-1).astype(np.int32)


def _classes(logits: np.ndarray, size: tuple[int, int], stride: int) -> np.ndarray:
    small = logits.argmax(-1).astype(np.int32)
    corners = np.pad(small, ((0, 1), (0, 1)), mode="edge")
    top, bottom = corners[:-1], corners[1:]
    mixed = (top[:, :-1] != top[:, 1:]) | (bottom[:, :-1] != small) | (bottom[:, 1:] != small)
    rows, columns = np.nonzero(mixed)
    if len(rows) > _LARGEST_SHARE * small.size:
        return _plain(logits[None], size)[0]
    cells = np.empty((small.shape[0], stride, small.shape[1], stride), np.int32)
    cells[:] = small[:, None, :, None]
    step = max(1, _CHUNK // (stride * stride * logits.shape[-1]))
    for first in range(0, len(rows), step):
        part = slice(first, first + step)
        cells[rows[part], :, columns[part]] = _interpolated(logits, rows[part], columns[part], stride).argmax(-1)
    whole = cells.reshape(small.shape[0] * stride, small.shape[1] * stride)
    return np.ascontiguousarray(whole[: size[0], : size[1]])


def _interpolated(logits: np.ndarray, rows: np.ndarray, columns: np.ndarray, stride: int) -> np.ndarray:
    """Returns the values between four neighbours: float32 [cells, stride, stride, classes]."""
    below = np.minimum(rows + 1, logits.shape[0] - 1)
    right = np.minimum(columns + 1, logits.shape[1] - 1)
    weights = (np.arange(stride, dtype=np.float32) / np.float32(stride))[:, None]

    def along(row):
        first = logits[row, columns][:, None]
        return first + (logits[row, right][:, None] - first) * weights

    top, bottom = along(rows)[:, None], along(below)[:, None]
    return top + (bottom - top) * weights[:, None]


# ---- in a graph


def strip_classes(logits: tf.Tensor, size: tuple[int, int]) -> tf.Tensor | None:
    """Emits the classes of bilinearly upsampled logits with aligned corners, in operations that LiteRT is fast at.

    LiteRT has an argmax for one thread, which waits for memory. XNNPACK has maxima: of the classes whose value is the
    largest, the first has the largest of `rest`, all of it exact. Columns, not classes, are the channels, so that many
    are calculated at once, and the rows come in strips that stay in the cache.

    Args:
      logits: float32 [1, h, w, classes] of known shape.
      size: height and width of the result.

    Returns:
      int32 [1, *size]; None where the stride is no power of two, or a strip would not stay in the cache.
    """
    _, rows, columns, classes = logits.shape
    stride = _stride((rows, columns), size)
    if stride is None or (step := max(1, _STRIP_ROWS // stride)) * stride * size[1] * classes > _STRIP_VALUES:
        return None
    power = np.float32(1 << (classes - 1).bit_length())
    rest = (np.arange(classes, 0, -1, dtype=np.float32) / power)[:, None]
    # Negated, and back: LiteRT's quantiser leaves this to float32, and with it, not before it, all that follows.
    wide = tf.transpose(resize_bilinear(tf.negative(logits), (rows, size[1])), (0, 1, 3, 2)) * -_LOGIT_SCALE
    strips = []
    for first in range(0, rows - 1, step):
        last = min(first + step, rows - 1)
        found = _largest_rest(wide[:, first : last + 1], (last - first) * stride + 1, rest)
        strips.append(found if last == rows - 1 else found[:, :-1])  # the next strip begins with this row
    largest = strips[0] if len(strips) == 1 else tf.concat(strips, 1)
    return tf.cast(np.float32(classes) - tf.reshape(largest, (1, *size)) * power, tf.int32)


def _largest_rest(strip: tf.Tensor, rows: int, rest: np.ndarray) -> tf.Tensor:
    """Returns [1, rows, 1, columns]: of `strip` [1, r, classes, columns] made `rows` high, the largest of `rest`
    [classes, 1] among the classes with the largest value."""
    classes = len(rest)

    def largest(maps):
        return tf.nn.max_pool2d(maps, (1, classes), 1, "VALID")

    tall = resize_bilinear(strip, (rows, classes))
    behind = tf.minimum(tf.maximum((tall - largest(tall)) * _STEEPNESS, -1.0), 1.0)  # one operation in a .tflite
    return largest(tf.nn.relu(behind + rest))
