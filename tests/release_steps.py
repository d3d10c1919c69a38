"""The release's padding, cropping and flipping as it does them, one step after the other: the judge of the windows."""

from collections.abc import Sequence

import tensorflow as tf


def below(draw: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns an int32 in [0, count), uniform for a uniform draw in [0, 1)."""
    product = tf.cast(draw * tf.cast(count, tf.float32), tf.int32)
    return tf.minimum(product, count - 1)  # the product may round up


def pad_to_bounding_box(
    image: tf.Tensor, offset_height: int, offset_width: int, target_height: int, target_width: int, pad_value: float
) -> tf.Tensor:
    """Returns a rank 3 or 4 image placed at an offset in a larger one of `pad_value`, in its own dtype.

    tf.errors.InvalidArgumentError with the release's messages where it does not fit; ValueError for another rank.
    """
    image = tf.convert_to_tensor(image)
    if image.shape.rank not in (3, 4):
        raise ValueError(f"Wrong image tensor rank: {image.shape.rank}, expected 3 or 4")
    height, width = tf.unstack(tf.shape(image)[-3:-1])
    after_height, after_width = target_height - offset_height - height, target_width - offset_width - width
    fits = "target size not possible with the given target offsets"
    checks = (
        tf.debugging.assert_greater_equal(target_height, height, "target_height must be >= height"),
        tf.debugging.assert_greater_equal(target_width, width, "target_width must be >= width"),
        tf.debugging.assert_non_negative(tf.minimum(after_height, after_width), fits),
    )
    paddings = [[offset_height, after_height], [offset_width, after_width], [0, 0]]
    with tf.control_dependencies([check for check in checks if check is not None]):
        paddings = [[0, 0]] * (image.shape.rank - 3) + paddings
        return tf.pad(image, paddings, constant_values=tf.cast(pad_value, image.dtype))


def random_crop(images: Sequence[tf.Tensor], size: Sequence[int], draws: tf.Tensor) -> list[tf.Tensor]:
    """Returns the same window of all [h, w, c] `images`; two uniform `draws` in [0, 1) place it, both ends included.

    tf.errors.InvalidArgumentError with the release's messages where sizes differ or the window does not fit.
    """
    height, width = tf.unstack(tf.shape(images[0])[:2])
    checks = [tf.debugging.assert_greater_equal((height, width), size, "Crop size greater than the image size.")]
    for image in images[1:]:
        shape = tf.shape(image)
        checks.append(tf.debugging.assert_equal(shape[0], height, "Wrong height for tensor"))
        checks.append(tf.debugging.assert_equal(shape[1], width, "Wrong width for tensor"))
    with tf.control_dependencies([check for check in checks if check is not None]):
        top, left = below(draws[0], height - size[0] + 1), below(draws[1], width - size[1] + 1)
    return [image[top : top + size[0], left : left + size[1]] for image in images]


def flip(images: Sequence[tf.Tensor], draw: tf.Tensor, *, probability: float = 0.5, axis: int = 1) -> list[tf.Tensor]:
    """Returns all `images` reversed along `axis` where `draw` <= `probability`, and else as they are.

    tf.reverse, as a slice with a step of -1 takes twelve times as long.
    """
    turned = draw <= probability
    return [
        tf.cond(turned, lambda image=image: tf.reverse(image, [axis]), lambda image=image: image) for image in images
    ]
