"""The networks whose training step is measured, by name, and what torchvision has like them."""

import dataclasses

from deeplab_tf import configs
from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import ModelConfig, TrainConfig
from deeplab_tf.errors import DeepLabError, unknown_name

# A variant has the head, decoder and options of the step of the recipe for its like.
_LIKE = {
    "v3_resnet101": ("resnet_v1_18", "resnet_v1_18_beta", "resnet_v1_50", "resnet_v1_50_beta", "resnet_v1_101")
    + ("resnet_v1_101_beta",),
    "v3plus_xception65": ("xception_41", "xception_65", "xception_71"),
}
_ONLY_STRIDE = {"nas_hnasnet": 8}
_OF_TORCHVISION = {
    "resnet_v1_50": "resnet50",
    "resnet_v1_50_beta": "resnet50",
    "resnet_v1_101": "resnet101",
    "resnet_v1_101_beta": "resnet101",
}


@dataclasses.dataclass(frozen=True)
class MeasuredNetwork:
    """A network and the options of its step.

    Attributes:
      model: of the network.
      train: of the step.
    """

    model: ModelConfig
    train: TrainConfig

    @property
    def counterpart(self) -> str | None:
        """The backbone of torchvision's DeepLab-v3 that is like it, or None.

        Its stem is one convolution where the beta forms have three, its head has one more of 3 x 3 before the last, and
        its ASPP has other rates, which cost the same. So each row has multiply-adds of its own.
        """
        model = self.model
        plain = not (model.decoder_output_stride or model.image_pyramid or model.cascade_blocks or model.quantized)
        is_v3 = plain and model.atrous_rates and model.aspp_with_batch_norm and not model.aspp_with_separable_conv
        good = is_v3 and model.output_stride in (8, 16) and model.dense_prediction_cell_json is None
        return _OF_TORCHVISION.get(model.model_variant) if good else None


def network_names() -> list[str]:
    """Returns the names of all: recipes that leave nothing open, and variants."""
    return [*(name for name in configs.names() if not configs.follows_data(name)), *ARCHITECTURES]


def named_network(name: str) -> MeasuredNetwork:
    """Returns the network of a recipe or of a variant.

    Raises:
      DeepLabError: the name is unknown, or the recipe's network follows the data.
    """
    if name in ARCHITECTURES:
        recipe = next((recipe for recipe, variants in _LIKE.items() if name in variants), None)
        if recipe is None:
            stride = _ONLY_STRIDE.get(name, ModelConfig().output_stride)
            return MeasuredNetwork(ModelConfig(model_variant=name, output_stride=stride), TrainConfig())
        like = configs.read(recipe)
        grid = like.model.multi_grid
        fits = grid is None or len(grid) == ARCHITECTURES[name].multi_grid_length
        model = dataclasses.replace(like.model, model_variant=name, multi_grid=grid if fits else None)
        return MeasuredNetwork(model, like.train)
    if name not in configs.names():
        raise unknown_name("network", name, network_names())
    if configs.follows_data(name):
        raise DeepLabError(f"--networks={name}: its network follows the data; expected another recipe, or a variant")
    recipe = configs.read(name)
    return MeasuredNetwork(recipe.model, recipe.train)
