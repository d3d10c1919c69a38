"""Initial weights of a training run, by name, with the release's exceptions (its utils/train_utils.py)."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import tensorflow as tf

from deeplab_tf.catalog.image_facts import RGB
from deeplab_tf.config.run import ExtraBands
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.names import AVERAGE, COUNTERS, SLOTS
from deeplab_tf.weights.recognize import recognize
from deeplab_tf.weights.sources import WeightSource, open_source
from deeplab_tf.weights.tf1 import training_state

_SLOT_LEAVES = {slot for slots in SLOTS.values() for slot in slots}
_STATE_LEAVES = {*_SLOT_LEAVES, AVERAGE, *COUNTERS}


@dataclasses.dataclass(frozen=True)
class Initialized:
    """The TF1 names of a run's variables by their origin.

    Attributes:
      loaded: they have the file's values.
      excluded: they keep their initial values, on request.
      missing: they keep their initial values, because the file lacks them.
      unused: names that only the file has.
      widened: of the loaded, those that read more bands here than in the file.
    """

    loaded: tuple[str, ...]
    excluded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    widened: tuple[str, ...] = ()

    def summary(self) -> str:
        """Returns a line for each group, with its first three names; what the optimizer has of its own is counted."""
        groups = dataclasses.asdict(self)
        state = [name for name in self.missing if name.rsplit("/", 1)[-1] in _STATE_LEAVES]
        groups["missing"] = [name for name in self.missing if name not in state]
        rows = [(name, names) for name, names in groups.items() if names or name != "widened"]
        lines = [f"  {name:<8} {len(names):5d}  {_listed(names)}" for name, names in rows]
        if state:
            lines.append(f"  new      {len(state):5d}  variables of the optimizer, which every new run begins with")
        return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def widened(kernel: np.ndarray, bands: int, extra: ExtraBands = "mean") -> np.ndarray:
    """Returns a kernel of RGB, [h, w, 3, filters], for images of `bands` bands.

    With "mean" the kernels of bands beyond the first three are the mean of the three, and all are divided by bands / 3:
    where all bands have one value, the response is that of the three. With "zero" the response does not depend on
    further bands. Fewer bands than three share the mean.
    """
    mean = kernel.mean(axis=2, keepdims=True)
    parts = [kernel, *[mean] * (bands - RGB)] if bands >= RGB else [mean] * bands
    if extra == "zero" and bands >= RGB:
        return np.concatenate([kernel, *[np.zeros_like(mean)] * (bands - RGB)], axis=2)
    return np.concatenate(parts, axis=2) * np.float32(RGB / bands)


def _is_widened(source: Sequence[int], shape: tf.TensorShape) -> bool:
    """Returns whether a variable has the shape of a kernel of RGB but for the bands that it reads."""
    target = cast("list[int]", shape.as_list())
    if len(source) != 4 or len(target) != 4 or source[2] != RGB or target[2] == RGB:
        return False
    return (*source[:2], source[3]) == (*target[:2], target[3])


def _check_shapes(source: WeightSource, variables: Mapping[str, tf.Variable], names: Sequence[str]) -> None:
    wrong = [n for n in names if tuple(source.shapes[n]) != tuple(variables[n].shape)]
    if wrong:
        first = f"{wrong[0]} is {list(source.shapes[wrong[0]])} there and {list(variables[wrong[0]].shape)} here"
        raise DeepLabError(
            f"--tf_initial_checkpoint={source.path}: {len(wrong)} variables have another shape ({first}); "
            f"{_cure(source, variables)}"
        )


def _cure(source: WeightSource, variables: Mapping[str, tf.Variable]) -> str:
    """Returns what to do about weights of another network, or of the same one with other classes."""
    here = {name: tuple(cast("list[int]", variable.shape.as_list())) for name, variable in variables.items()}
    different = _differences(source.shapes, here)
    flags = [f"--{name}={_shown(value)}" for name, value in different.items() if name != "num_classes"]
    classes = "--initialize_last_layer=false (with --last_layers_contain_logits_only to keep ASPP and decoder)"
    if not flags:
        return f"for another number of classes give {classes}"
    more = f", and for the other classes {classes}" if "num_classes" in different else ""
    return f"they are those of another network: give {' '.join(flags)}{more}; --config=finetune follows the weights"


def _differences(there: Mapping[str, tuple[int, ...]], here: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the fields of ModelConfig in which the networks of two sets of shapes differ, with those of the first."""
    fields: list[Mapping[str, Any]] = []
    for shapes in (there, here):
        state = training_state(list(shapes))
        try:
            fields.append(recognize({name: shape for name, shape in shapes.items() if name not in state}).known)
        except DeepLabError:
            return {}
    return {name: value for name, value in fields[0].items() if name in fields[1] and fields[1][name] != value}


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


def initialize(
    variables: Mapping[str, tf.Variable],
    path: str | os.PathLike[str],
    *,
    excluded_scopes: Sequence[str] = (),
    extra_bands: ExtraBands = "mean",
) -> Initialized:
    """Assigns to `variables` the values that a file holds under their names.

    The kernels of a network of RGB are widened for one that reads other bands (see `widened`); the optimiser's slots of
    these begin anew. global_step is never taken over; optimiser slots are, if the file has them. A variable that the
    file lacks keeps its initial value (the release warns too); one with another shape is an error.

    Args:
      variables: TF1 name -> variable: weights and training state.
      path: a checkpoint prefix (or one of its files), a folder, a .tar.gz, a frozen .pb, a .tflite or a
        .caffemodel.
      extra_bands: how kernels are widened.
      excluded_scopes: beginnings of names that are left alone, such as "logits".

    Raises:
      DeepLabError: a variable has another shape, the file is damaged, or it has no variable of these.
    """
    with open_source(os.fspath(path)) as source:
        skip = ("global_step", *excluded_scopes)
        candidates = [name for name in variables if not name.startswith("global_step")]
        excluded = [name for name in candidates if name.startswith(skip)]
        wanted = [name for name in candidates if not name.startswith(skip)]
        loaded = [name for name in wanted if name in source.shapes]
        wide = [name for name in loaded if _is_widened(source.shapes[name], variables[name].shape)]
        slots = [name for name in wide if name.rpartition("/")[2] in _SLOT_LEAVES]
        wide = [name for name in wide if name not in slots]
        loaded = [name for name in loaded if name not in slots]
        _check_shapes(source, variables, [name for name in loaded if name not in wide])
        if not loaded:
            raise DeepLabError(
                f"--tf_initial_checkpoint={source.path}: none of its {len(source.shapes)} variables belongs to this "
                f"network; expected names such as {wanted[0]}; is --model_variant right?"
            )
        for name, value in [(name, source.read(name)) for name in loaded]:
            bands = variables[name].shape[2] if name in wide else None
            variables[name].assign(value if bands is None else widened(value, bands, extra_bands))
        unused = [name for name in source.shapes if name not in variables]
    missing = [name for name in wanted if name not in loaded]
    return Initialized(tuple(loaded), tuple(excluded), tuple(missing), tuple(unused), tuple(wide))
