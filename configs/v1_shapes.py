"""DeepLab-v1 scaled down: an eighth of VGG-16's channels, LargeFOV at half the rate, on the synthetic shapes.

  deeplab-tf train --config=v1_shapes --dataset_dir=shapes_records --train_logdir=exp/v1_shapes

Published: none. Measured: 0.647 mIoU on the 500 held-out pictures, 0.760 with the CRF.
Hardware: two CPU cores, about 15 minutes.

`deeplab-tf build-data --dataset=shapes` makes the data. It trains from scratch and without batch norm, so that Adam
replaces momentum, and a network this narrow has no features to drop. A map of 17 x 17 places asks for half of the
paper's rate, and shapes of a few pixels for logits enlarged to the labels, as in DeepLab-v3.
"""

import dataclasses

from deeplab_tf.config import EvalConfig, Experiment, RunConfig
from deeplab_tf.configs.v1_vgg16_largefov import EXPERIMENT as LARGE_FOV

EXPERIMENT = Experiment(
    model=dataclasses.replace(LARGE_FOV.model, depth_multiplier=0.125, fc_filters=128, atrous_rates=(6,)),
    train=dataclasses.replace(
        LARGE_FOV.train,
        optimizer="adam",
        adam_learning_rate=0.0,  # the policy's
        base_learning_rate=0.002,
        learning_policy="cosine",
        training_number_of_steps=4000,
        weight_decay=0.0,
        last_layer_gradient_multiplier=1.0,
        upsample_logits=True,
        dropout=False,
    ),
    data=dataclasses.replace(LARGE_FOV.data, dataset="shapes", crop_size=(129, 129), batch_size=16),
    run=RunConfig(),
    evaluation=EvalConfig(eval_crop_size=(129, 129), crf=True, crf_sigma_alpha=40.0, crf_sigma_beta=12.0),
)
