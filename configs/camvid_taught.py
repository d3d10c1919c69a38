r"""A small network taught by a larger one: CamVid, of which a tenth has labels.

  deeplab-tf train --config=camvid_taught --dataset_dir=camvid_records --train_logdir=exp/taught \
    --teacher=exp/teacher --unlabelled_dir=camvid_records

Published: none. Measured: docs/how-to/train.md, where the teacher and the data are described.
Hardware: two CPU cores, about 9 minutes.

It trains from scratch. Without the last two flags it trains on the labelled pictures alone,
which has been better so far.
"""

import dataclasses

from deeplab_tf.configs.camvid_frozen import EXPERIMENT as CAMVID
from deeplab_tf.configs.shapes_taught import EXPERIMENT as TAUGHT

EXPERIMENT = dataclasses.replace(
    TAUGHT,
    train=dataclasses.replace(TAUGHT.train, training_number_of_steps=1500),
    data=dataclasses.replace(CAMVID.data, crop_size=(145, 193)),
    evaluation=CAMVID.evaluation,
)
