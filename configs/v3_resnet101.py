"""DeepLab-v3: ResNet-101 with unit rates 1, 2, 4, ASPP and image pooling, at output stride 16.

  deeplab-tf train --config=v3_resnet101 --dataset_dir=voc_records --train_logdir=exp/v3

Published: v3/table6/os16 77.21 %; v3/table6/os8 78.51 %; v3/table6/os8-ms-flip 79.77 %.
Hardware: one K80, 3.65 days, or 32 asynchronous ones (arXiv 1706.05587, appendix B).

The start is the zoo's ResNet-101 of ImageNet. The higher scores are of the same weights at output stride 8, then on six
scales and mirrored. v3_resnet101_trainval goes on from here.
"""

from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig

EXPERIMENT = Experiment(
    model=ModelConfig(
        model_variant="resnet_v1_101_beta",
        output_stride=16,
        multi_grid=(1, 2, 4),
        atrous_rates=(6, 12, 18),
        aspp_with_separable_conv=False,
    ),
    train=TrainConfig(base_learning_rate=0.007, training_number_of_steps=30000, weight_decay=0.0001),
    data=DataConfig(crop_size=(513, 513), batch_size=16),
    run=RunConfig(train_split="train_aug", tf_initial_checkpoint="resnet_v1_101_beta_imagenet"),
)
