r"""CamVid from the same weights as camvid_frozen, with a decoder for its thin classes and batch norm that is trained.

  deeplab-tf train --config=camvid_mobilenet_v2 --dataset_dir=camvid_records --train_logdir=exp/camvid \
    --tf_initial_checkpoint=deeplabv3_mnv2_dm05_pascal

Published: none. Measured: 0.661 val mIoU at a single scale, 0.695 at the scales below (camvid_frozen: 0.624, 0.667).
Hardware: two CPU cores, about 45 minutes (0.52 s a step).

The folded batch norm gets statistics of the training images before the first step (unfold_batch_norm), so that it can
be trained, and is measured once more after the last (recalibrate_batch_norm): 5,000 steps are few for the head's
averages. Columns, signs, pedestrians and the like weigh more in the loss; half of what is scored is thin or rare.
Scored at scales 1, 1.5 and 2 with flips: the pictures are small.
"""

import dataclasses

from deeplab_tf.configs.camvid_frozen import EXPERIMENT as FROZEN

EXPERIMENT = dataclasses.replace(
    FROZEN,
    model=dataclasses.replace(FROZEN.model, decoder_output_stride=(4,), decoder_filters=64),
    train=dataclasses.replace(
        FROZEN.train,
        base_learning_rate=0.007,
        training_number_of_steps=5000,
        fine_tune_batch_norm=True,
        last_layer_gradient_multiplier=5.0,
        weight_decay=1e-4,
        label_weights=(1, 1, 2, 1, 1, 1, 2, 1.5, 1, 2, 1.5),
    ),
    run=dataclasses.replace(FROZEN.run, unfold_batch_norm=20, recalibrate_batch_norm=40),
    evaluation=dataclasses.replace(FROZEN.evaluation, eval_scales=(1.0, 1.5, 2.0), add_flipped_images=True),
)
