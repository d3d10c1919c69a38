r"""The way to 89.0 %: v3plus_xception65_trainval from a backbone that has also seen JFT-300M, which is not public.

  deeplab-tf train --config=v3plus_xception65_jft --dataset_dir=voc_records --train_logdir=exp/v3plus_jft \
    --tf_initial_checkpoint=your_train_aug_run

Published: v3plus/table6/xception-65-jft 89.0 %; v3plus/table5/sc-jft-os16 83.03 %.
Hardware: 50 GPUs for ImageNet alone (arXiv 1802.02611, section 4.3).

1. Xception-65 on ImageNet and JFT-300M: neither data nor weights are public. ImageNet alone: xception_65_imagenet.
2. DeepLab-v3+ on MS-COCO. Backbone without JFT: xception_65_imagenet_coco.
3. v3plus_xception65 on train_aug, held to 83.03 % at output stride 16; without JFT 82.20 %,
   xception65_coco_voc_trainaug.
4. This recipe, held to 89.0 %; without JFT 87.8 %, xception65_coco_voc_trainval (87.80 %), the public end point.
"""

import dataclasses

from deeplab_tf.configs.v3plus_xception65_trainval import EXPERIMENT as PUBLIC

EXPERIMENT = dataclasses.replace(PUBLIC, run=dataclasses.replace(PUBLIC.run, tf_initial_checkpoint=None))
