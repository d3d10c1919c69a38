r"""CamVid from Google's MobileNetV2 of depth multiplier 0.5: new logits, batch norm as it is. The release's way.

  deeplab-tf train --config=camvid_frozen --dataset_dir=camvid_records --train_logdir=exp/camvid_frozen \
    --tf_initial_checkpoint=deeplabv3_mnv2_dm05_pascal

Published: none; the original's own code reached 61.4 % val mIoU over the 11 classes at a single scale.
Hardware: two CPU cores, half an hour (0.3 s a step).

The weights come from a TFLite model, so that their batch norm is folded: with batch statistics they would be another
network, hence fine_tune_batch_norm is off. Only the logits are new, and learn ten times as fast.
"""

from deeplab_tf.config import DataConfig, EvalConfig, Experiment, ModelConfig, RunConfig, TrainConfig

EXPERIMENT = Experiment(
    model=ModelConfig(model_variant="mobilenet_v2", depth_multiplier=0.5, output_stride=16),
    train=TrainConfig(
        base_learning_rate=0.002,
        training_number_of_steps=6000,
        fine_tune_batch_norm=False,
        last_layers_contain_logits_only=True,
        last_layer_gradient_multiplier=10.0,
    ),
    data=DataConfig(dataset="camvid", crop_size=(241, 321), batch_size=8),
    run=RunConfig(initialize_last_layer=False),
    evaluation=EvalConfig(eval_crop_size=(369, 481), eval_batch_size=4),
)
