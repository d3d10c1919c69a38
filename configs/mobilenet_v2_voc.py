r"""Mobile DeepLab-v3: MobileNetV2 without atrous convolutions in its head, 2.11M parameters, 2.75B multiply-adds.

  deeplab-tf train --config=mobilenet_v2_voc --dataset_dir=voc_records --train_logdir=exp/mobilenet_v2 \
    --tf_initial_checkpoint=mobilenet_v2_1.0_224.ckpt

Published: mobilenet-v2/table7/os16 75.32 %; mobilenet-v2/table7/os8-ms-flip 77.33 %.
Hardware: not given; one GPU of 12 GB.

The start is slim's MobileNetV2 of ImageNet. The published score has MS-COCO in between, whose weights are not public;
its public end point is the zoo's mobilenetv2_coco_voc_trainaug (75.32 %), and from there the zoo's
mobilenetv2_coco_voc_trainval (80.25 % on test) is one run on trainval away.
"""

from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig

EXPERIMENT = Experiment(
    model=ModelConfig(model_variant="mobilenet_v2", output_stride=16),
    train=TrainConfig(base_learning_rate=0.007, training_number_of_steps=30000),
    data=DataConfig(crop_size=(513, 513), batch_size=16),
    run=RunConfig(train_split="train_aug"),
)
