r"""DeepLab-v3's last step: the official annotations of trainval, at output stride 8, with frozen batch norm.

  deeplab-tf train --config=v3_resnet101_trainval --dataset_dir=voc_records --train_logdir=exp/v3_trainval \
    --tf_initial_checkpoint=exp/v3

Published: v3/table7/deeplabv3 85.7 %; v3/table6/os8-ms-flip-coco 82.70 %.
Hardware: as v3_resnet101.

85.7 % took three steps: 60K pictures of MS-COCO with the classes of PASCAL VOC (here a data set of your own, see
`deeplab-tf build-data --dataset=folder`); v3_resnet101 from there, held to the 82.70 %; and this one, with the pictures
of bicycles, chairs, tables, potted plants and sofas twice in the list. Without MS-COCO its rate is 0.001. The weights
are not public; the zoo's xception65_coco_voc_trainval is the nearest that are.
"""

import dataclasses

from deeplab_tf.configs.v3_resnet101 import EXPERIMENT as BEFORE

EXPERIMENT = dataclasses.replace(
    BEFORE,
    model=BEFORE.model.at_output_stride(8),
    train=dataclasses.replace(BEFORE.train, base_learning_rate=0.0001, freeze_batch_norm=True),
    run=dataclasses.replace(BEFORE.run, train_split="trainval", tf_initial_checkpoint=None),
)
