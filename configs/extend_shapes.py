r"""Two more shapes for a network of six: `extend`, scaled down as shapes_resnet is.

  deeplab-tf extend --config=extend_shapes --checkpoint=six --add=crescent,heart --dataset_dir=new_records \
    --train_logdir=eight --old_dataset_dir=old_records

Published: none. Measured: docs/how-to/train.md, where its data are described.
Hardware: two CPU cores with bfloat16 (AMX), about 7 minutes.
"""

import dataclasses

from deeplab_tf.configs.shapes_resnet import EXPERIMENT as SHAPES

EXPERIMENT = dataclasses.replace(
    SHAPES,
    train=dataclasses.replace(
        SHAPES.train,
        base_learning_rate=0.002,
        slow_start_step=50,
        slow_start_learning_rate=0.0001,
        training_number_of_steps=1500,
        distillation_weight=1.0,
    ),
    data=dataclasses.replace(SHAPES.data, dataset=None, crop_size=(97, 97)),
    evaluation=dataclasses.replace(SHAPES.evaluation, eval_crop_size=(97, 97)),
)
