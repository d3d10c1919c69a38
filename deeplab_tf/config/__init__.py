"""Every option, once: a field of a frozen dataclass, named as the release's flag, with its default and help.

The commands derive their absl flags from these fields (tools/options.py), recipes are `dataclasses.replace` over a
default, and a model directory remembers its ModelConfig. Importing this package does not import TensorFlow.
"""

from deeplab_tf.config.changes import override as override
from deeplab_tf.config.changes import require_effect as require_effect
from deeplab_tf.config.data import DataConfig as DataConfig
from deeplab_tf.config.evaluation import EvalConfig as EvalConfig
from deeplab_tf.config.evaluation import VisConfig as VisConfig
from deeplab_tf.config.experiment import DERIVED as DERIVED
from deeplab_tf.config.experiment import Experiment as Experiment
from deeplab_tf.config.export import ExportConfig as ExportConfig
from deeplab_tf.config.inference import Inference as Inference
from deeplab_tf.config.label import LabelConfig as LabelConfig
from deeplab_tf.config.model import INFERENCE_FIELDS as INFERENCE_FIELDS
from deeplab_tf.config.model import ModelConfig as ModelConfig
from deeplab_tf.config.pack import PackConfig as PackConfig
from deeplab_tf.config.predict import PredictConfig as PredictConfig
from deeplab_tf.config.run import RunConfig as RunConfig
from deeplab_tf.config.serve import RUNTIMES as RUNTIMES
from deeplab_tf.config.serve import ServeConfig as ServeConfig
from deeplab_tf.config.train import TrainConfig as TrainConfig
