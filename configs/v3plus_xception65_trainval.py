"""DeepLab-v3+ for the test set: on from the zoo's 82.20 % with trainval, at output stride 8, with frozen batch norm.

  deeplab-tf train --config=v3plus_xception65_trainval --dataset_dir=voc_records --train_logdir=exp/v3plus_trainval

Published: v3plus/table6/xception-65 87.8 %.
Hardware: not given.

Every start is public: xception_65_imagenet, xception_65_imagenet_coco, xception65_coco_voc_trainaug (82.20 % on val).
So is the end, xception65_coco_voc_trainval, 87.80 % on test on six scales and mirrored. The rate is the release's for
trainval.
"""

import dataclasses

from deeplab_tf.configs import v3plus_xception65

MODEL = v3plus_xception65.MODEL.at_output_stride(8)
TRAIN = dataclasses.replace(v3plus_xception65.TRAIN, base_learning_rate=0.0001, freeze_batch_norm=True)
DATA = v3plus_xception65.DATA
RUN = dataclasses.replace(
    v3plus_xception65.RUN, train_split="trainval", tf_initial_checkpoint="xception65_coco_voc_trainaug"
)
