r"""Two more classes for a network of nine on CamVid: pavement and cars, from pictures labelled for these alone.

  deeplab-tf extend --config=extend_camvid --checkpoint=nine --add=Pavement,Car --background=other \
    --dataset_dir=new_records --train_logdir=eleven --old_dataset_dir=old_records

Published: none. Measured: docs/how-to/train.md, where its data are described.
Hardware: two CPU cores, about 18 minutes of processor time.
"""

import dataclasses

from deeplab_tf.configs.camvid_frozen import EXPERIMENT as FROZEN
from deeplab_tf.configs.camvid_mobilenet_v2 import EXPERIMENT as CAMVID

EXPERIMENT = dataclasses.replace(
    CAMVID,
    train=dataclasses.replace(
        CAMVID.train,
        base_learning_rate=0.003,
        training_number_of_steps=600,
        label_weights=None,
        distillation_weight=1.0,
    ),
    data=dataclasses.replace(CAMVID.data, dataset=None, crop_size=(177, 241)),
    run=dataclasses.replace(CAMVID.run, unfold_batch_norm=0, initialize_last_layer=True),
    evaluation=FROZEN.evaluation,
)
