"""DeepLab-v3+: Xception-65, separable ASPP and decoder, at output stride 16.

  deeplab-tf train --config=v3plus_xception65 --dataset_dir=voc_records --train_logdir=exp/v3plus

Published: v3plus/table5/sc-os16 79.79 %; v3plus/table5/sc-os8 80.02 %; v3plus/table5/sc-os8-ms-flip 81.39 %.
Hardware: not given; about 16 GB on one GPU for batches of 16 at mixed precision, or several GPUs.

The start is the zoo's Xception-65 of ImageNet. With MS-COCO in between (the zoo's xception_65_imagenet_coco is its
backbone) the paper has v3plus/table5/sc-coco-os16 82.20 %, which is the zoo's xception65_coco_voc_trainaug.
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
    data=DataConfig(crop_size=(513, 513), batch_size=16),
    run=RunConfig(train_split="train_aug", tf_initial_checkpoint="xception_65_imagenet"),
)
