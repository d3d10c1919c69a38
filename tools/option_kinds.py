"""The kinds of flags: parsers of switches, counts and paths, and the absl function for each type of a field."""

import typing

from absl import flags

from deeplab_tf import files
from deeplab_tf.config.fields import SWITCHES, item_type, switch

AUTO = "auto"  # the value of a flag whose number the command finds


DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_multi_string,  # --rates=6,12 and --rates=6 --rates=12 both work
}


def kind_of(annotation: typing.Any) -> type:
    """Returns the scalar type of a field's annotation; tuple for a list of scalars, str for anything else."""
    item = item_type(annotation)
    if item in (int, float, str) or typing.get_origin(item) is typing.Literal:
        return tuple
    kinds = [a for a in typing.get_args(annotation) if a is not type(None)] or [annotation]
    return kinds[0] if kinds[0] in (bool, int, float) else str


def choices_of(annotation: typing.Any) -> tuple[str, ...]:
    """Returns the words of the Literal that a field, or each element of its list, is; empty: it is none."""
    for kind in (item_type(annotation), annotation, *typing.get_args(annotation)):
        if typing.get_origin(kind) is typing.Literal:
            return typing.get_args(kind)
    return ()


class SwitchParser(flags.ArgumentParser):
    """Parses auto, or what a boolean flag takes, to a Switch."""

    def parse(self, argument: str) -> str:
        """Returns auto, true or false."""
        if argument.lower() == "auto":
            return "auto"
        try:
            return switch(flags.BooleanParser().parse(argument))
        except ValueError:
            raise ValueError(f"expected one of {', '.join(SWITCHES)}") from None


class CountOrAutoParser(flags.IntegerParser):
    """Parses a number of at least 1, or auto."""

    # A flag of a number that may be a word has a value of either type.
    def parse(self, argument: str | int) -> int | str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns the number, or auto."""
        if str(argument).strip().lower() == AUTO:
            return AUTO
        try:
            return super().parse(argument)
        except ValueError:
            raise ValueError("expected a number, or auto") from None


class SwitchFlag(flags.Flag):
    """A flag that is given as a boolean one is (--name, --noname, --name=false), or as --name=auto."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(SwitchParser(), flags.ArgumentSerializer(), name, None, text, boolean=True)

    def _serialize(self, value: str | None) -> str:
        return "" if value is None else f"--{self.name}={value}"


class PathParser(flags.ArgumentParser):
    """Parses a path as the user types it (`files.clean`); a flag with this parser holds paths.

    Every path flag of every command has it, so that `~` and a slash at the end mean the same in all of them.

    Args:
      addresses: whether the flag takes an address or a camera too, `files.is_address`, which stays as it is typed.
    """

    def __init__(self, *, addresses: bool = False) -> None:
        self.addresses = addresses

    def parse(self, argument: str) -> str:
        """Returns the path."""
        return argument if self.addresses and files.is_address(argument) else files.clean(argument)


class NamedPathParser(PathParser):
    """A parser of a name or a path: x is a name, x/ the folder ./x."""

    def parse(self, argument: str) -> str:
        """Returns the name or the path, which has a separator."""
        cleaned = files.clean(argument)
        return f"./{cleaned}" if "/" in argument and "/" not in cleaned else cleaned


class PathListParser(PathParser):
    """A parser of several paths with commas between them."""

    def parse(self, argument: str) -> str:
        """Returns the paths, again with commas between them."""
        return ",".join(map(files.clean, argument.split(",")))


class PathsParser(flags.ListParser, PathParser):
    """A parser of several paths with commas between them, to a list."""

    # The two parsers disagree about the result; ListParser's, the first of the two, is the one that counts.
    def parse(self, argument: str | list[str]) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns the paths."""
        return [files.clean(place) for place in flags.ListParser.parse(self, argument)]
