r"""DeepLab-v2: ResNet-101, four 3x3 convolutions of rates 6 to 24 summed, three scales with a loss each.

  deeplab-tf train --config=v2_resnet101_aspp --dataset_dir=voc_records --train_logdir=exp/v2 \
    --tf_initial_checkpoint=init.caffemodel

Published: v2/table4/msc-coco-aug-aspp 76.35 %; v2/table5/crf-resnet-101 79.7 %.
Hardware: one Titan X GPU (arXiv 1606.00915).

The start is the authors' ResNet-101 trained on ImageNet and MS-COCO. Batch norm stays as it is there, as in their
solver, whose rate this is (the text gives VGG-16's, 0.001). The score on test comes from training on trainval_aug
instead, and from the CRF.
"""

from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig

EXPERIMENT = Experiment(
    model=ModelConfig(
        model_variant="resnet_v1_101_caffe",
        output_stride=8,
        aspp_with_batch_norm=False,
        logits_kernel_size=3,
        atrous_rates=(6, 12, 18, 24),
        image_pyramid=(0.5, 0.75, 1.0),
    ),
    train=TrainConfig(
        base_learning_rate=0.00025,
        training_number_of_steps=20000,
        weight_decay=0.0005,
        last_layer_gradient_multiplier=10.0,
        freeze_batch_norm=True,
        upsample_logits=False,
    ),
    data=DataConfig(crop_size=(321, 321), batch_size=10, max_scale_factor=1.5),
    run=RunConfig(train_split="train_aug"),
)
