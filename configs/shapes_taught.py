r"""A small network taught by a larger one: synthetic shapes, of which a tenth has labels.

  deeplab-tf train --config=shapes_taught --dataset_dir=shapes_records --train_logdir=exp/taught \
    --teacher=shapes_resnet --unlabelled_dir=shapes_records

Published: none. Measured: docs/how-to/train.md, where its data are described.
Hardware: two CPU cores, about 10 minutes.

It trains from scratch. Without the last two flags it trains on the labelled pictures alone.
"""

import dataclasses

from deeplab_tf.config import ModelConfig
from deeplab_tf.configs.shapes_resnet import EXPERIMENT as SHAPES

EXPERIMENT = dataclasses.replace(
    SHAPES,
    model=ModelConfig(
        model_variant="tiny",
        output_stride=16,
        add_image_level_feature=False,
        aspp_convs_filters=32,
        decoder_output_stride=(4,),
        decoder_filters=32,
    ),
    train=dataclasses.replace(
        SHAPES.train,
        base_learning_rate=0.004,
        slow_start_step=100,
        training_number_of_steps=2000,
        mixed_precision="none",
        teacher_confidence=0.7,
    ),
    data=dataclasses.replace(SHAPES.data, crop_size=(97, 97), batch_size=16),
    run=dataclasses.replace(SHAPES.run, train_split="tenth", unlabelled_share=0.75),
    evaluation=dataclasses.replace(SHAPES.evaluation, eval_crop_size=(97, 97)),
)
