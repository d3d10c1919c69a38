"""Carrier, a layer by which a network's configuration and its card travel in Keras's files, clones and wrappers."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from deeplab_tf.config import ModelConfig


class Carrier(keras.layers.Layer):
    """A layer that says which network it belongs to: Keras copies and saves layers without asking a model for more.

    Every network has one, the layer on pixels.

    Attributes:
      network: the configuration of the network; None: the layer belongs to a backbone alone.
      card: what is known of the weights, as JSON (`Network.card`); None: nothing is.
    """

    def __init__(
        self, *, network: Mapping[str, Any] | None = None, card: Mapping[str, Any] | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        source = f"the saved layer {self.name!r}"
        self.network = None if network is None else ModelConfig.from_json(dict(network), source=source)
        self.card = None if card is None else json.dumps(card)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        network = {"network": self.network.to_json()} if self.network else {}
        return {**super().get_config(), **network, **({"card": json.loads(self.card)} if self.card else {})}


def carry(layers: Iterable[keras.layers.Layer], config: ModelConfig) -> None:
    """Has the carriers among `layers` carry the configuration of their network."""
    for layer in layers:
        if isinstance(layer, Carrier):
            layer.network = config


def carried(layers: Iterable[keras.layers.Layer]) -> list[ModelConfig]:
    """Returns the configurations, each once, of the networks that the carriers among `layers` belong to."""
    return list(dict.fromkeys(layer.network for layer in layers if isinstance(layer, Carrier) and layer.network))


def carry_card(layers: Iterable[keras.layers.Layer], card: Mapping[str, Any] | None) -> None:
    """Has the carriers among `layers` carry what is known of their network's weights."""
    for layer in layers:
        if isinstance(layer, Carrier):
            layer.card = None if card is None else json.dumps(card)


def carried_card(layers: Iterable[keras.layers.Layer]) -> dict[str, Any] | None:
    """Returns what the first carrier among `layers` that knows something knows of the weights, or None."""
    text = next((layer.card for layer in layers if isinstance(layer, Carrier) and layer.card), None)
    return None if text is None else json.loads(text)
