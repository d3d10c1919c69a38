"""Starting a training run from weights: by name, with the release's exceptions (its utils/train_utils.py)."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.sources import WeightSource, open_source


@dataclasses.dataclass(frozen=True)
class Initialized:
    """What became of the variables of a run: TF1 names that were loaded, excluded on request, or are not in the file
    (they keep their initial values); `unused` are in the file only."""

    loaded: tuple[str, ...]
    excluded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def summary(self) -> str:
        """Returns a line a group, the names shortened to their first three."""
        rows = dataclasses.asdict(self).items()
        return "\n".join(f"  {name:<8} {len(names):5d}  {_listed(names)}" for name, names in rows)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _check_shapes(source: WeightSource, variables: Mapping[str, tf.Variable], names: Sequence[str]):
    wrong = [n for n in names if tuple(source.shapes[n]) != tuple(variables[n].shape)]
    if wrong:
        first = f"{wrong[0]} is {list(source.shapes[wrong[0]])} there and {list(variables[wrong[0]].shape)} here"
        raise DeepLabError(
            f"--tf_initial_checkpoint={source.path}: {len(wrong)} variables have another shape ({first}); for another "
            "number of classes give --initialize_last_layer=false (with --last_layers_contain_logits_only to keep ASPP "
            "and decoder)"
        )


def initialize(
    variables: Mapping[str, tf.Variable], path: str | os.PathLike, *, excluded_scopes: Sequence[str] = ()
) -> Initialized:
    """Assigns to `variables` what the file holds under their names.

    global_step is never taken over; optimiser slots are, where the file has them. A name that the file lacks keeps its
    initial value (the release warns too); a shape that differs is an error.

    Args:
      variables: TF1 name -> variable: weights and training state.
      path: anything `sources.open_source` takes.
      excluded_scopes: beginnings of names that are left alone, such as "logits".

    Raises:
      DeepLabError: another shape, a damaged file, or nothing at all in common.
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
    return Initialized(*map(tuple, (loaded, excluded, missing, unused)))
