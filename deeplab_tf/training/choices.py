"""Options that a recipe chooses by the data, each with its reason, under what the user gives."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.config import DataConfig, EvalConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.config.fields import Options
from deeplab_tf.config.resuming import flag_of

Given = Mapping[type[Options], Mapping[str, Any]]


def shown(value: Any) -> str:
    """Returns the value of an option as a flag takes it."""
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    if isinstance(value, bool) or value is None:
        return str(bool(value)).lower() if value is not None else ""
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One option that was chosen.

    Attributes:
      part: the configuration that has it.
      field: its name there.
      value: what the recipe takes.
      reason: why.
    """

    part: type[Options]
    field: str
    value: Any
    reason: str

    def line(self, given: Given) -> str:
        """Returns the choice as it is printed; one that the user has made in its place says so."""
        flag = flag_of(self.field)
        other = given.get(self.part, {})
        if self.field in other:
            value = getattr(self.part(**{self.field: other[self.field]}), self.field)
            return f"--{flag}={shown(value)}: as given, in place of {shown(self.value) or 'unset'} ({self.reason})"
        return f"--{flag}={shown(self.value)}: {self.reason}"


class Chosen:
    """The choices so far, over a recipe and under what is given."""

    def __init__(self, recipe: Experiment, given: Given) -> None:
        self._recipe = recipe
        self._given = given
        self.choices: list[Choice] = []

    def add(self, part: type[Options], field: str, value: Any, reason: str) -> Any:
        """Adds a choice; returns the value that counts."""
        self.choices.append(Choice(part, field, value, reason))
        return getattr(self.of(part), field)

    def of(self, part: type[Options]) -> Any:
        """Returns a part of the experiment with the choices so far."""
        parts = (self._recipe.model, self._recipe.train, self._recipe.data, self._recipe.run, self._recipe.evaluation)
        recipe = next(options for options in parts if type(options) is part)
        chosen = {choice.field: choice.value for choice in self.choices if choice.part is part}
        return dataclasses.replace(recipe, **{**chosen, **self._given.get(part, {})})

    def experiment(self, model: ModelConfig, facts: Dataset) -> Experiment:
        """Returns the experiment of a network on a data set."""
        parts = [self.of(part) for part in (TrainConfig, DataConfig, RunConfig, EvalConfig)]
        return Experiment(model, *parts).on(facts)

    def given_of(self, part: type[Options]) -> Mapping[str, Any]:
        """Returns the fields of a part that the user gives."""
        return self._given.get(part, {})

    def lines(self) -> list[str]:
        """Returns a line for each choice."""
        return [choice.line(self._given) for choice in self.choices]
