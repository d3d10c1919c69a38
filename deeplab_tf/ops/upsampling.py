"""Classes at full size from logits at the network's stride, without interpolating where one class leads all around."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from deeplab_tf.ops.resizing import resize_bilinear, static_dimensions

# The largest share of cells on borders; beyond it, interpolating everything is as fast.
_LARGEST_SHARE = 0.4
_CHUNK = 1 << 21  # values computed at a time, which stay in the cache
_STRIP_ROWS = 16
_STRIP_VALUES = 1 << 19  # values of a strip at most: two of its maps stay in the cache
# Times both, logits that differ by 2**-24 or more, float32's spacing from 1/2 on, differ by 1 or more. Each factor is a
# float16 too, as is a logit of up to 127 times the first, because delegates may calculate in float16.
_LOGIT_SCALE = np.float32(512)
_STEEPNESS = np.float32(32768)


def upsampled_classes(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the classes of bilinearly upsampled logits with aligned corners: argmax(resize_bilinear(logits, size)).

    Between four neighbouring logits every value is a mean of theirs: a class that leads at all four leads throughout,
    and nothing needs to be interpolated. The other cells, on the borders between classes, are interpolated in the order
    of TensorFlow's operation, so that the results are the same bits.

    Args:
      logits: float32 [b, h, w, classes].
      size: height and width of the result.

    Returns:
      int32 [b, height, width].
    """
    stride = exact_stride((logits.shape[1], logits.shape[2]), size)
    return np.stack([_classes(one, size, stride) for one in logits]) if stride else plain_classes(logits, size)


def exact_stride(small: tuple[int, int], size: tuple[int, int]) -> int | None:
    """Returns the stride of logits in pixels, or None: it is not a power of two, so that weights are not exact."""
    strides = {(new - 1) // (old - 1) if old > 1 else 0 for old, new in zip(small, size, strict=True)}
    (stride,) = strides if len(strides) == 1 else (0,)
    exact = all((old - 1) * stride + 1 == new for old, new in zip(small, size, strict=True))
    return stride if stride > 1 and exact and stride & (stride - 1) == 0 else None


def plain_classes(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the classes int32 [b, *size] of logits float32 [b, h, w, classes], every pixel being interpolated.

    Of equal classes it takes the first, as argmax does, in two thirds of the time of that.
    """
    return tf.math.top_k(resize_bilinear(logits, size), 1, sorted=False).indices[..., 0].numpy()


def compile_classes(shape: Sequence[int], size: tuple[int, int]) -> Callable[[np.ndarray, tuple[int, int]], np.ndarray]:
    """Returns a function that gives the same bits as `upsampled_classes` for logits of one shape: a loop made by XLA.

    It is compiled when it is first called, in a fraction of a second.

    Args:
      shape: of the logits [b, h, w, classes], whose `exact_stride` for `size` is known.
      size: height and width of the result.
    """
    stride = exact_stride((shape[1], shape[2]), size)
    assert stride is not None
    signature = [tf.TensorSpec(list(shape), tf.float32), tf.TensorSpec((), tf.int32)]

    @tf.function(input_signature=signature, jit_compile=True, autograph=False)
    def run(logits: tf.Tensor, nothing: tf.Tensor) -> tf.Tensor:
        wide = _between(logits, 2, stride, nothing)
        return tf.argmax(_between(wide, 1, stride, nothing), axis=-1, output_type=tf.int32)

    return lambda logits, _: run(tf.constant(logits), tf.constant(0)).numpy()


def _between(maps: tf.Tensor, axis: int, stride: int, nothing: tf.Tensor) -> tf.Tensor:
    """Returns maps [b, h, w, c] with `stride - 1` interpolated values between neighbours along an axis.

    `nothing` is a 0 that the compiler does not know: with it between them, a product and a sum are rounded one after
    the other as in TensorFlow's operation, and not in one instruction.
    """
    (length,) = static_dimensions(maps, axis)
    left, last = tf.split(maps, [length - 1, 1], axis)
    _, right = tf.split(maps, [1, length - 1], axis)
    weights = np.arange(stride, dtype=np.float32) / np.float32(stride)
    weights = weights.reshape([stride if place == axis + 1 else 1 for place in range(5)])
    parts = tf.bitcast(tf.expand_dims(right - left, axis + 1) * weights, tf.int32)
    steps = tf.expand_dims(left, axis + 1) + tf.bitcast(tf.bitwise.bitwise_xor(parts, nothing), tf.float32)
    shape = [side * (stride if place == axis else 1) for place, side in enumerate(static_dimensions(left, *range(4)))]
    return tf.concat([tf.reshape(steps, shape), last], axis)


def _classes(logits: np.ndarray, size: tuple[int, int], stride: int) -> np.ndarray:
    """Returns the classes [*size] of logits [h, w, classes] at an exact `stride`."""
    small = logits.argmax(-1).astype(np.int32)
    # Each logit owns a cell of stride x stride pixels; those of the last row and column reach beyond the picture.
    corners = np.pad(small, ((0, 1), (0, 1)), mode="edge")
    top, bottom = corners[:-1], corners[1:]
    mixed = (top[:, :-1] != top[:, 1:]) | (bottom[:, :-1] != small) | (bottom[:, 1:] != small)
    rows, columns = np.nonzero(mixed)
    if len(rows) > _LARGEST_SHARE * small.size:
        return plain_classes(logits[None], size)[0]
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

    def along(row: np.ndarray) -> np.ndarray:
        left = logits[row, columns][:, None]
        return left + (logits[row, right][:, None] - left) * weights

    top = along(rows)[:, None]
    bottom = along(below)[:, None]
    return top + (bottom - top) * weights[:, None]


# ---- in a graph


def strip_classes(logits: tf.Tensor, size: tuple[int, int]) -> tf.Tensor | None:
    """Emits the classes of bilinearly upsampled logits with aligned corners, in operations that LiteRT is fast at.

    LiteRT's argmax runs in one thread and waits for memory; XNNPACK has no argmax, but maxima. So each class gets a
    number `rest`, the larger the earlier it comes: of the classes with the largest value the first is the one with the
    largest `rest`, all of it exact.

    Args:
      logits: float32 [1, h, w, classes] of known shape.
      size: height and width of the result.

    Returns:
      int32 [1, height, width]; None if the stride is not a power of two, or a strip would not stay in the cache.
    """
    rows, columns, classes = static_dimensions(logits, 1, 2, 3)
    stride = exact_stride((rows, columns), size)
    if stride is None:
        return None
    step = max(1, _STRIP_ROWS // stride)
    if step * stride * size[1] * classes > _STRIP_VALUES:
        return None
    # Numbers of (classes, ..., 2, 1) / power in 0..1 have few bits, so that float16 holds them exactly.
    power = np.float32(1 << (classes - 1).bit_length())
    rest = (np.arange(classes, 0, -1, dtype=np.float32) / power)[:, None]
    # The columns become the channels, because XNNPACK calculates many channels at once.
    # Negated, and back: LiteRT's quantiser leaves this to float32, and with it, not before it, all that follows.
    wide = tf.transpose(resize_bilinear(tf.negative(logits), (rows, size[1])), (0, 1, 3, 2)) * -_LOGIT_SCALE
    # At full size the map of all classes would go to memory and back between operations; strips of rows stay in the
    # cache. Neighbouring strips share a row of logits, whose pixels the lower one yields.
    strips = []
    for first in range(0, rows - 1, step):
        last = min(first + step, rows - 1)
        strip = _largest_rest(wide[:, first : last + 1], (last - first) * stride + 1, rest)
        strips.append(strip if last == rows - 1 else strip[:, :-1])
    largest = strips[0] if len(strips) == 1 else tf.concat(strips, 1)
    return tf.cast(np.float32(classes) - tf.reshape(largest, (1, *size)) * power, tf.int32)


def _largest_rest(strip: tf.Tensor, rows: int, rest: np.ndarray) -> tf.Tensor:
    """Returns the largest of `rest` [classes, 1] among the classes with the largest value at each pixel.

    `strip` is float32 [1, r, classes, columns], the result float32 [1, rows, 1, columns].
    """
    classes = len(rest)

    def largest(maps: tf.Tensor) -> tf.Tensor:
        return tf.nn.max_pool2d(maps, (1, classes), 1, "VALID")

    tall = resize_bilinear(strip, (rows, classes))
    # 0 for the classes with the largest value, -1 for all others: these fall to 0 or below when `rest` is added, and
    # the relu takes them out. Minimum and maximum together are one operation in a .tflite.
    behind = tf.minimum(tf.maximum((tall - largest(tall)) * _STEEPNESS, -1.0), 1.0)
    return largest(tf.nn.relu(behind + rest))
