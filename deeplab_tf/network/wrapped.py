"""as_network and config_of: the network that a model is, as built, loaded, copied or cloned, or that it wraps."""

from typing import Any

import keras

from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.carrier import carried, carried_card
from deeplab_tf.network.layers import ResizeBilinear
from deeplab_tf.network.model import Derived, Network, assembled, foreign

# What may follow a network inside another model without changing which class a pixel has: `predict` upsamples the
# logits itself.
_AFTER = (keras.layers.Softmax, keras.layers.Resizing, keras.layers.UpSampling2D, keras.layers.Identity, ResizeBilinear)
_KEEPING_ORDER = ("softmax", "linear")
_DERIVED = "_deeplab_tf_derived"  # the attribute of a model that has the network's layers without being one


def _keeps_classes(operation: Any) -> bool:
    if isinstance(operation, keras.layers.Activation):
        return getattr(operation.activation, "__name__", "") in _KEEPING_ORDER
    return isinstance(operation, _AFTER)


def _require_alone(model: keras.Model, before: list[Any], after: list[Any]) -> None:
    """Raises DeepLabError where a model does more to pixels or classes than the network in it."""
    first = next((operation for operation in before if not isinstance(operation, keras.layers.InputLayer)), None)
    other = first or next((operation for operation in after if not _keeps_classes(operation)), None)
    if other is not None:
        raise DeepLabError(
            f"model {model.name!r}: its {type(other).__name__} {other.name!r} changes what the network in it reads or "
            "gives, and would be left out; expected the network itself, or with softmax and upsampling alone after it"
        )


def _has_own_call(model: keras.Model) -> bool:
    """Returns whether what runs is code of a class that is neither Keras's nor ours."""
    module = getattr(type(model).call, "__module__", None) or ""
    return module.partition(".")[0] not in ("keras", "deeplab_tf")


def _holds_network(model: keras.Model) -> bool:
    inner = (layer for layer in model.layers if isinstance(layer, keras.Model))
    return bool(carried(model.layers)) or any(_holds_network(layer) for layer in inner)


def _own_call(model: keras.Model) -> DeepLabError:
    """Returns the error for a model whose class has a call of its own; it names the network in it, if there is one."""
    if not _holds_network(model):
        return foreign(model)
    held = (name for name, value in vars(model).items() if isinstance(value, keras.Model) and _holds_network(value))
    attribute = next(held, None)
    cure = f"give that one, model.{attribute}" if attribute else "give one from deeplab_tf.build_model or load"
    return DeepLabError(
        f"model {model.name!r}: its class {type(model).__name__} has a call of its own, which may do more than the "
        f"network in it; {cure}"
    )


def _operations(model: keras.Model) -> list[Any]:
    """Returns the operations of a functional or sequential model in their order; [] of another."""
    if isinstance(model, keras.Sequential):
        return list(model.layers)
    return list(getattr(model, "operations", ()))


def _unwrapped(model: keras.Model) -> Network:
    """Returns the network that is one of the layers of a model, or whose layers the model has."""
    operations = _operations(model)
    inner = [place for place, operation in enumerate(operations) if isinstance(operation, keras.Model)]
    if len(inner) == 1:
        (place,) = inner
        network = as_network(operations[place])
        _require_alone(model, operations[:place], operations[place + 1 :])
        return network
    configs = carried(operation for operation in operations if isinstance(operation, keras.layers.Layer))
    if inner or len(configs) != 1:
        raise foreign(model)
    (config,) = configs
    layers = {layer.name: layer for layer in model.layers}
    network = assembled(config, {name: layer for name, layer in layers.items() if layer.weights}, upsampled=False)
    missing = [layer.name for layer in network.layers if layer.weights and layers.get(layer.name) is not layer]
    if missing:
        raise DeepLabError(
            f"model {model.name!r}: lacks {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''} of its "
            f"{config.model_variant} network; expected all of its layers"
        )
    network.card = carried_card(model.layers)
    names = {layer.name for layer in network.layers}
    _require_alone(model, [], [operation for operation in operations if operation.name not in names])
    return network


def as_network(model: keras.Model) -> Network:
    """Returns the network that a model is, as built, loaded, copied or cloned, or that it wraps.

    A wrapper may be a functional or sequential model of Keras that has the network for a layer, or shares its layers,
    and adds softmax and upsampling at most: what runs is the network. One whose class has a call of its own is refused.

    Raises:
      DeepLabError: the model was not made here, or does more to pixels or classes than its network.
    """
    if _has_own_call(model):
        raise _own_call(model)
    if isinstance(model, Network):
        _ = model.config
        return model
    # Past Keras's own __setattr__, which would track it and save it.
    return vars(model).setdefault(_DERIVED, Derived()).get(Network, lambda: _unwrapped(model))


def config_of(model: keras.Model) -> ModelConfig:
    """Returns the configuration that `build_model` made `model`, or the network in it, from; DeepLabError: none did."""
    return as_network(model).config
