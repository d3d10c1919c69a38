"""build_model, which builds the network of a configuration, perhaps with the weights of another one."""

import dataclasses

import keras

from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.model import Network, assembled
from deeplab_tf.network.wrapped import as_network, config_of

# What two graphs that share weights may differ in. Strides, rates and padding are the layers' own.
_PER_GRAPH = (
    "crop_size",
    "image_pooling_crop_size",
    "image_pooling_stride",
    "image_pyramid",
    "merge_method",
    "prediction_with_upsampled_logits",
)


def _shared_layers(model: keras.Model, config: ModelConfig) -> dict[str, keras.layers.Layer]:
    theirs = config_of(model)
    same = dataclasses.replace(theirs, **{name: getattr(config, name) for name in _PER_GRAPH})
    if same != config:
        fields = [f.name for f in dataclasses.fields(config) if getattr(same, f.name) != getattr(config, f.name)]
        raise DeepLabError(
            f"share_with: the models differ in {', '.join(fields)}, which belongs to the layers; expected the same "
            "network for another input size (for another output stride build anew and load the weights)"
        )
    return {layer.name: layer for layer in as_network(model).layers if layer.weights}


def build_model(
    config: ModelConfig,
    *,
    share_with: keras.Model | None = None,
    all_scales: bool = False,
    zeros: bool = False,
    upsample_logits: bool = False,
) -> Network:
    """Returns the network: images [b, h, w, 3], float32 RGB in 0..255 -> logits [b, h', w', num_classes].

    Where config.input_channels says so, images have that many bands.
    The logits are those before the last upsampling, unless `upsample_logits`. With a crop_size the graph takes images
    of that size only (the pooling window of ASPP depends on it, as in the release); without one, any size. Layers are
    named by their TF1 scopes with "." for "/".

    Args:
      config: the options.
      share_with: a model built here whose weights this one uses too (the same network for another input size).
      all_scales: return a dictionary of the logits of each scale of the image pyramid and "merged_logits" instead.
      zeros: start all kernels at 0 instead of drawing them, which takes most of the time: for counting, or loading.
      upsample_logits: give the logits at the size of the images, [b, h, w, num_classes], bilinearly with aligned
        corners as in evaluation, so that Keras's own losses and metrics fit. The release aligns pixels and logits where
        h and w are k * stride + 1; `predict` pads to that.

    Raises:
      DeepLabError: options that cannot go together.

    Example:
    >>> config = deeplab_tf.ModelConfig(model_variant="tiny", num_classes=3, crop_size=(65, 97))
    >>> model = deeplab_tf.build_model(config)
    >>> model.input_shape, model.output_shape
    ((None, 65, 97, 3), (None, 5, 7, 3))
    >>> model.config.output_stride
    16
    """
    shared = _shared_layers(share_with, config) if share_with else None
    return assembled(config, shared, all_scales=all_scales, zeros=zeros, upsampled=upsample_logits)
