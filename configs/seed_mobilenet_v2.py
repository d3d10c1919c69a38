r"""DeepLab-v3+ with MobileNetV2, to compare with seed_xception65: the same ASPP, decoder, data and steps.

  deeplab-tf train --config=seed_mobilenet_v2 --dataset_dir=voc_records --train_logdir=exp/seed_mobilenet_v2 \
    --tf_initial_checkpoint=mobilenet_v2_1.0_224.ckpt

Published: mobilenet-v2/table7/aspp-os16 75.70 %.
Hardware: one GPU of 8 GB.

The published network has no decoder, plain convolutions in ASPP, and was trained on MS-COCO before. The start is slim's
MobileNetV2 of ImageNet, as the other half's is the Xception of ImageNet.
"""

import dataclasses

from deeplab_tf.configs.seed_xception65 import EXPERIMENT as XCEPTION

EXPERIMENT = dataclasses.replace(
    XCEPTION,
    model=dataclasses.replace(XCEPTION.model, model_variant="mobilenet_v2"),
    run=dataclasses.replace(XCEPTION.run, tf_initial_checkpoint=None),
)
