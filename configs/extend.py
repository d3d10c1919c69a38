r"""More classes for a network, from pictures labelled for these alone (deeplab-tf extend).

  deeplab-tf extend --config=extend --checkpoint=exp/street --add=curb,manhole --background=sidewalk \
    --dataset_dir=RECORDS --train_logdir=exp/street_curb

Published: none.
Hardware: what is there; crop and batch follow from its memory.

As `finetune`, but for the loss, which is unbiased cross entropy, and unbiased distillation from the network before
(Cermelli et al. 2020, Modeling the Background, arXiv 2002.00718).

The command takes this recipe where none is given.
"""

from deeplab_tf.config import Experiment, TrainConfig

FOLLOWS_DATA = True
# See docs/how-to/train.md for what was measured.
EXPERIMENT = Experiment(train=TrainConfig(distillation_weight=1.0))
