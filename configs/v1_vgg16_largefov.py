r"""DeepLab-v1: VGG-16 whose fc6 is a 3x3 convolution of rate 12.

  deeplab-tf train --config=v1_vgg16_largefov --dataset_dir=voc_records --train_logdir=exp/v1_largefov \
    --tf_initial_checkpoint=init.caffemodel

Published: v1/table1a/largefov 62.25 %; v1/table1a/crf-largefov 67.64 %; v1/table1b/crf-largefov 70.3 %.
Hardware: one Titan GPU, about ten hours (arXiv 1412.7062).

The start is the authors' VGG-16 of ImageNet with fc6 and fc7 thinned to 3x3 and 1024 filters; their CRF is
`deeplab-tf eval --crf`. Their score on test comes from training on trainval_aug instead. The labels shrink to the
logits, the classifier learns ten times as fast, pictures are mirrored but not scaled.
"""

from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig

EXPERIMENT = Experiment(
    model=ModelConfig(model_variant="vgg16", output_stride=8, aspp_with_batch_norm=False, atrous_rates=(12,)),
    train=TrainConfig(
        learning_policy="step",
        base_learning_rate=0.001,
        training_number_of_steps=6000,
        weight_decay=0.0005,
        last_layer_gradient_multiplier=10.0,
        last_layers_contain_logits_only=True,
        upsample_logits=False,
    ),
    data=DataConfig(crop_size=(321, 321), batch_size=20, min_scale_factor=1.0, max_scale_factor=1.0),
    run=RunConfig(train_split="train_aug"),
)
