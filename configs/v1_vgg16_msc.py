r"""DeepLab-v1's best: LargeFOV and multi-scale features, the maps of the image and of four poolings beside fc7.

  deeplab-tf train --config=v1_vgg16_msc --dataset_dir=voc_records --train_logdir=exp/v1_msc \
    --tf_initial_checkpoint=exp/v1_largefov --initialize_last_layer=false

Published: v1/table1a/msc-largefov 64.21 %; v1/table1a/msc-crf-largefov 68.70 %; v1/table1b/msc-crf-largefov 71.6 %.
Hardware: one Titan GPU (arXiv 1412.7062).

It goes on from v1_vgg16_largefov, whose logits are too narrow and start anew. The paper then trains the new layers
alone; here all are trained. The score on test comes from training on trainval_aug instead, and from the CRF.
"""

import dataclasses

from deeplab_tf.configs.v1_vgg16_largefov import EXPERIMENT as LARGE_FOV

EXPERIMENT = dataclasses.replace(
    LARGE_FOV,
    model=dataclasses.replace(LARGE_FOV.model, multi_scale_features=True),
    run=dataclasses.replace(LARGE_FOV.run, initialize_last_layer=False),
)
