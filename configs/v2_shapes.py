"""DeepLab-v2 scaled down: v1_shapes with ASPP's four branches and three scales, a loss at each and at their maximum.

  deeplab-tf train --config=v2_shapes --dataset_dir=shapes_records --train_logdir=exp/v2_shapes

Published: none. Measured: 0.667 mIoU on the 500 held-out pictures, 0.761 with the CRF.
Hardware: two CPU cores with bfloat16 (AMX), about 20 minutes.

`deeplab-tf build-data --dataset=shapes` makes the data; it trains from scratch. The rates are ASPP-S's, those of ASPP-L
exceed a map of 17 x 17 places. With random scales of 0.75 to 1.25, 3,000 steps came to 0.55 only, 0.65 with the CRF.
"""

import dataclasses

from deeplab_tf.configs.v1_shapes import EXPERIMENT as V1

EXPERIMENT = dataclasses.replace(
    V1,
    model=dataclasses.replace(V1.model, atrous_rates=(2, 4, 8, 12), image_pyramid=(0.5, 0.75, 1.0)),
    train=dataclasses.replace(V1.train, mixed_precision="bfloat16"),
)
