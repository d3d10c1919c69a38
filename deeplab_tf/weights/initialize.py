"""Initial weights of a training run, by name, with the release's exceptions (its utils/train_utils.py)."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.sources import WeightSource, open_source


@dataclasses.dataclass(frozen=True)
class Initialized:
    """The TF1 names of a run's variables by their origin.

    Attributes:
      loaded: they have the file's values.
      excluded: they keep their initial values, on request.
      missing: they keep their initial values, because the file lacks them.
      unused: names that only the file has.
    """

    loaded: tuple[str, ...]
    excluded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def summary(self) -> str:
        """Returns a line for each group, with its first three names."""
        rows = dataclasses.asdict(self).items()
        return "\n".join(f"  {name:<8} {len(names):5d}  {_listed(names)}" for name, names in rows)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _check_shapes(source: WeightSource, variables: Mapping[str, tf.Variable], names: Sequence[str]) -> None:
    wrong = [n for n in names if tuple(source.shapes[n]) != tuple(variables[n].shape)]
    if wrong:
        first = f"{wrong[0]} is {list(source.shapes[wrong[0]])} there and {list(variables[wrong[0]].shape)} here"
        raise DeepLabError(
            f"--tf_initial_checkpoint={source.path}: {len(wrong)} variables have another shape ({first}); for another "
            "number of classes give --initialize_last_layer=false (with --last_layers_contain_logits_only to keep ASPP "
            "and decoder)"
        )


def initialize(
    variables: Mapping[str, tf.Variable], path: str | os.PathLike[str], *, excluded_scopes: Sequence[str] = ()
) -> Initialized:
    """Assigns to `variables` the values that a file holds under their names.

    global_step is never taken over; optimiser slots are, if the file has them. A variable that the file lacks keeps its
    initial value (the release warns too); one with another shape is an error.

    Args:
      variables: TF1 name -> variable: weights and training state.
      path: a checkpoint prefix (or one of its files), a folder, a .tar.gz, a frozen .pb, a float .tflite or a
        .caffemodel.
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
        _check_shapes(source, variables, loaded)
        if not loaded:
            raise DeepLabError(
                f"--tf_initial_checkpoint={source.path}: none of its {len(source.shapes)} variables belongs to this "
                f"network; expected names such as {wanted[0]}; is --model_variant right?"
            )
        for name, value in [(name, source.read(name)) for name in loaded]:
            variables[name].assign(value)
        unused = [name for name in source.shapes if name not in variables]
    missing = [name for name in wanted if name not in loaded]
    return Initialized(tuple(loaded), tuple(excluded), tuple(missing), tuple(unused))
