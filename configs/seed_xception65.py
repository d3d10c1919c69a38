"""DeepLab-v3+ with Xception-65 or MobileNetV2, alike in all else: this is the Xception half of the comparison.

  deeplab-tf train --config=seed_xception65 --dataset_dir=voc_records --train_logdir=exp/seed_xception65

Published: v3plus/table5/sc-os16 79.79 %.
Hardware: one GPU of 16 GB.

The comparison comes from a course report: v3+ on PASCAL VOC at 512 x 512 and output stride 16, once with either
backbone; it found MobileNetV2 quicker to train and not much less accurate, at close to 80 % mIoU. The other half is
seed_mobilenet_v2. Both start from ImageNet and have the same data, batch, steps and crop (513, which is 32 k + 1).
"""

from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig

EXPERIMENT = Experiment(
    model=ModelConfig(
        model_variant="xception_65",
        output_stride=16,
        atrous_rates=(6, 12, 18),
        decoder_output_stride=(4,),
    ),
    train=TrainConfig(base_learning_rate=0.007, training_number_of_steps=30000),
    data=DataConfig(crop_size=(513, 513), batch_size=8),
    run=RunConfig(train_split="train_aug", tf_initial_checkpoint="xception_65_imagenet"),
)
