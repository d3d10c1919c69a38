r"""Any data set of one's own, from any weights: what is not given is chosen, and printed with its reason.

  deeplab-tf train --config=finetune --dataset_dir=RECORDS --train_logdir=exp/own \
    --tf_initial_checkpoint=deeplabv3_mnv2_dm05_pascal

Published: none.
Hardware: what is there; crop and batch follow from its memory.

The network is that of the initial weights (variant, depth multiplier, head, decoder, strides); its last layer is new
where the classes differ. Crop, batch, steps, rate, batch norm and class weights follow from the data: deeplab_tf's
training/finetuning.py has the rules. A flag decides otherwise, and a run that goes on keeps what it began with.
"""

from deeplab_tf.config import Experiment

# The choices replace what is set here, but for the flags that are given.
FOLLOWS_DATA = True
EXPERIMENT = Experiment()
