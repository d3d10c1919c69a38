"""DeepLab-v2 scaled down: v1_shapes with ASPP's four branches and three scales, a loss at each and at their maximum.

  deeplab-tf train --config=v2_shapes --dataset_dir=shapes_records --train_logdir=exp/v2_shapes

Published: none. Not yet trained to its end.
Hardware: two CPU cores, some minutes.

`deeplab-tf build-data --dataset=shapes` makes the data; it trains from scratch. The rates are ASPP-S's, those of ASPP-L
exceed a map of 17 x 17 places; random scales are those of the paper.
"""

import dataclasses

from deeplab_tf.configs import v1_shapes

MODEL = dataclasses.replace(v1_shapes.MODEL, atrous_rates=(2, 4, 8, 12), image_pyramid=(0.5, 0.75, 1.0))
TRAIN = v1_shapes.TRAIN
DATA = dataclasses.replace(v1_shapes.DATA, min_scale_factor=0.5, max_scale_factor=1.5)
RUN = v1_shapes.RUN
EVAL = v1_shapes.EVAL
