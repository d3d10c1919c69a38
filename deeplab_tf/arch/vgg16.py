"""VGG-16 as DeepLab-v1 and v2 use it (arXiv 1412.7062, 1606.00915; pooling and mean of their public Caffe models).

Their networks pool over 3x3 instead of 2x2 pixels, so that the maps of images of 8 k + 1 pixels stay aligned. fc6 and
fc7 are in the head (deeplab_tf/network/head.py), which knows their rates.
"""

from deeplab_tf.arch.spec import CAFFE_MEAN, Architecture, BackboneOptions, make_divisible
from deeplab_tf.arch.units import Conv, MaxPool, Unit

# (number of convolutions, channels) of the five blocks at depth multiplier 1; each ends in a max pooling of stride 2.
_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def units(config: BackboneOptions) -> tuple[Unit, ...]:
    """Returns the rows; a depth multiplier other than 1 rounds channels to multiples of 8."""
    rows: list[Unit] = []
    for block, (count, channels) in enumerate(_BLOCKS, start=1):
        filters = make_divisible(channels * config.depth_multiplier, 8)
        scopes = [f"conv{block}/conv{block}_{n}" for n in range(1, count + 1)]
        rows += [Conv(scope, filters, end_point=scope) for scope in scopes]
        rows.append(MaxPool(f"pool{block}", explicit_padding=True, end_point=f"pool{block}"))
    return tuple(rows)


ARCHITECTURES = (
    Architecture(
        name="vgg16",
        scope="vgg_16",
        units=units,
        batch_norm=None,
        preprocessing="subtract_mean",
        mean=CAFFE_MEAN,
        pad_pixel=CAFFE_MEAN,
        initializer="resnet",
        scaled_by=("depth_multiplier",),
        fully_connected=True,
        multi_scale_end_points=tuple(f"vgg_16/pool{block}" for block in (1, 2, 3, 4)),
    ),
)
