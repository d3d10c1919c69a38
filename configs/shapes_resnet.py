"""The embedded network: a small ResNet with a decoder, on the synthetic shapes.

  deeplab-tf train --config=shapes_resnet --dataset_dir=shapes_records --train_logdir=exp/shapes

Published: none. Measured: 0.904 mIoU on the 500 held-out pictures (0.924 on those of the training).
Hardware: two CPU cores with bfloat16 (AMX), about 20 minutes (0.16 s of processor time a step).

`deeplab-tf build-data --dataset=shapes` makes the data, as many pictures as the run takes. It trains from scratch in
few steps: small batches, Adam with a rate that falls to nothing, and batch norm measured anew for the last weights.
Pictures are not scaled (they come in all sizes).
"""

from deeplab_tf.config import DataConfig, EvalConfig, Experiment, RunConfig, TrainConfig
from deeplab_tf.zoo.released import SHAPES_CONFIG

EXPERIMENT = Experiment(
    model=SHAPES_CONFIG,
    train=TrainConfig(
        optimizer="adam",
        adam_learning_rate=0.0,
        base_learning_rate=0.0035,
        learning_policy="cosine",
        slow_start_step=300,
        slow_start_learning_rate=0.0003,
        slow_start_burnin_type="linear",
        training_number_of_steps=12000,
        dropout=False,
        mixed_precision="bfloat16",
    ),
    data=DataConfig(
        dataset="shapes",
        crop_size=(129, 129),
        batch_size=8,
        min_scale_factor=1.0,
        max_scale_factor=1.0,
    ),
    run=RunConfig(recalibrate_batch_norm=30),
    evaluation=EvalConfig(eval_crop_size=(129, 129)),
)
