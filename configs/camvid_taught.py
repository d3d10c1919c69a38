r"""A small network taught by a larger one: CamVid, of which the first tenth, one drive at dusk, has labels.

  deeplab-tf train --config=camvid_taught --dataset_dir=camvid_records --train_logdir=exp/taught \
    --tf_initial_checkpoint=deeplabv3_mnv2_dm05_pascal --teacher=exp/teacher --unlabelled_dir=camvid_records

Published: none. Measured: docs/how-to/train.md, where the teacher and the data are described.
Hardware: two CPU cores, 8 to 13 minutes.

Without the last two flags it trains on the labelled pictures alone. All pixels of the others count, sure or not: what a
teacher is least sure of is what is thin and rare, and half of what is scored is that.
"""

import dataclasses

from deeplab_tf.configs.camvid_frozen import EXPERIMENT as FROZEN
from deeplab_tf.configs.camvid_mobilenet_v2 import EXPERIMENT as CAMVID

EXPERIMENT = dataclasses.replace(
    CAMVID,
    train=dataclasses.replace(CAMVID.train, training_number_of_steps=3000, teacher_confidence=0.0),
    data=dataclasses.replace(CAMVID.data, crop_size=(145, 193)),
    run=dataclasses.replace(CAMVID.run, train_split="tenth"),
    evaluation=FROZEN.evaluation,
)
