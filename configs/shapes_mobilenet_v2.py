"""The embedded network: a small MobileNetV2 with a decoder, on the synthetic shapes.

  deeplab-tf train --config=shapes_mobilenet_v2 --dataset_dir=shapes_records --train_logdir=exp/shapes

Published: none. Measured: 0.864 mIoU on the 500 held-out pictures.
Hardware: two CPU cores, about 20 minutes (0.2 s of processor time a step).

`deeplab-tf build-data --dataset=shapes` makes the data. It trains from scratch in few steps: small batches, Adam with
a rate that falls to nothing, and batch norm measured anew for the last weights. Pictures are neither scaled (they come
in all sizes) nor repeated often.
"""

from deeplab_tf.config import DataConfig, EvalConfig, RunConfig, TrainConfig
from deeplab_tf.released import SHAPES_MNV2_CONFIG

MODEL = SHAPES_MNV2_CONFIG
TRAIN = TrainConfig(
    optimizer="adam",
    adam_learning_rate=0.0,
    base_learning_rate=0.0035,
    learning_policy="cosine",
    slow_start_step=300,
    slow_start_learning_rate=0.0003,
    slow_start_burnin_type="linear",
    training_number_of_steps=11000,
    dropout=False,
)
DATA = DataConfig(dataset="shapes", crop_size=(129, 129), batch_size=8, min_scale_factor=1.0, max_scale_factor=1.0)
RUN = RunConfig(recalibrate_batch_norm=30)
EVAL = EvalConfig(eval_crop_size=(129, 129))
