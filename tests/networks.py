"""Small networks that the tests of prediction, export and serving share, with weights that give every class."""

import dataclasses

import numpy as np
from conftest import fill
from golden import golden_image

from deeplab_tf.config import ModelConfig
from deeplab_tf.network.model import build_model
from deeplab_tf.weights.tf1 import variable_map

SMALL = ModelConfig(model_variant="mobilenet_v2", depth_multiplier=0.25, num_classes=6, aspp_convs_filters=16)
DECODER = dataclasses.replace(SMALL, atrous_rates=(1, 2), decoder_output_stride=(4,), decoder_filters=16)
V3 = ModelConfig(
    model_variant="mobilenet_v3_small_seg",
    num_classes=6,
    output_stride=32,
    depth_multiplier=0.5,
    aspp_with_concat_projection=False,
    aspp_with_squeeze_and_excitation=True,
    image_se_uses_qsigmoid=True,
    decoder_use_sum_merge=True,
    decoder_filters=6,
    decoder_output_is_logits=True,
    decoder_output_stride=(8,),
    aspp_convs_filters=16,
    image_pooling_crop_size=(65, 65),
    image_pooling_stride=(1, 2),
)


def lively(config: ModelConfig):
    """Returns a model with golden weights whose logits are spread evenly, so that every class occurs."""
    model = build_model(config)
    fill(model)
    names = variable_map(model)
    scope = "decoder/decoder_conv0" if config.decoder_output_is_logits else "logits/semantic"
    scopes = [scope, "decoder/feature_projection0"] if config.decoder_output_is_logits else [scope]
    image = golden_image("lively", *(config.crop_size or (129, 129)))[None].astype(np.float32)
    whole = build_model(dataclasses.replace(config, crop_size=image.shape[1:3]), share_with=model)
    logits = whole(image, training=False).numpy()
    mean, factor = logits.mean((0, 1, 2)), 3 / logits.std((0, 1, 2))
    for number, scope in enumerate(scopes):
        kernel, bias = names[f"{scope}/weights"], names[f"{scope}/biases"]
        kernel.assign(kernel * factor)
        bias.assign((bias - (0 if number else mean)) * factor)
    return model
