"""DeepLab-v3+ for the test set: on from the zoo's 82.20 % with trainval, at output stride 8, with frozen batch norm.

  deeplab-tf train --config=v3plus_xception65_trainval --dataset_dir=voc_records --train_logdir=exp/v3plus_trainval

Published: v3plus/table6/xception-65 87.8 %.
Hardware: not given.

Every start is public: xception_65_imagenet, xception_65_imagenet_coco, xception65_coco_voc_trainaug (82.20 % on val).
So is the end, xception65_coco_voc_trainval, 87.80 % on test on six scales and mirrored. The rate is the release's for
trainval.
"""

import dataclasses

from deeplab_tf.configs.v3plus_xception65 import EXPERIMENT as BEFORE

EXPERIMENT = dataclasses.replace(
    BEFORE,
    model=BEFORE.model.at_output_stride(8),
    train=dataclasses.replace(BEFORE.train, base_learning_rate=0.0001, freeze_batch_norm=True),
    run=dataclasses.replace(
        BEFORE.run,
        train_split="trainval",
        tf_initial_checkpoint="xception65_coco_voc_trainaug",
    ),
)
