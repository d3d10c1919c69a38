"""Flags of the commands: absl flags derived from configuration fields, and how a command starts and ends."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from absl import flags

from deeplab_tf import files
from deeplab_tf.config.fields import EXPORTS, HUB, WEIGHTS, Switch, auto_or_count
from deeplab_tf.errors import DeepLabError, is_out_of_memory, what_was_asked
from deeplab_tf.tools import help_pages
from deeplab_tf.tools.ending import ending
from deeplab_tf.tools.option_kinds import (
    DEFINE,
    CountOrAutoParser,
    NamedPathParser,
    PathListParser,
    PathParser,
    PathsParser,
    SwitchFlag,
    choices_of,
    kind_of,
)

CHECKPOINT_HELP = WEIGHTS
RUNNABLE_HELP = f"{WEIGHTS}; or {EXPORTS}"


def define_path(values: flags.FlagValues, name: str, default: str | None, text: str, *, named: bool = False) -> None:
    """Defines a flag that holds a path, or where it is `named` a name or a path."""
    parser = NamedPathParser() if named else PathParser()
    flags.DEFINE(parser, name, default, text, values, flags.ArgumentSerializer())


def define_path_list(values: flags.FlagValues, name: str, default: Sequence[str], text: str) -> None:
    """Defines a flag that holds paths with commas between them; its value is a list."""
    flags.DEFINE(PathsParser(), name, list(default), text, values, flags.ListSerializer(","))


def define_paths(
    values: flags.FlagValues, name: str, default: Sequence[str] | None, text: str, *, addresses: bool = False
) -> None:
    """Defines a flag that holds a path, or where it takes `addresses` one of those, and may be given several times."""
    flags.DEFINE_multi(PathParser(addresses=addresses), flags.ArgumentSerializer(), name, default, text, values)


def _define_field(values: flags.FlagValues, name: str, field: dataclasses.Field, text: str) -> None:
    kind = kind_of(field.type)
    if field.type == Switch:
        flags.DEFINE_flag(SwitchFlag(name, text), values)
    elif field.metadata["parse"] is auto_or_count and kind is int:  # the command finds the number
        flags.DEFINE(CountOrAutoParser(), name, None, text, values, flags.ArgumentSerializer())
    elif not field.metadata["path"]:
        DEFINE[kind](name, None, text, flag_values=values)
    elif kind is tuple:
        flags.DEFINE_multi(PathListParser(), flags.ArgumentSerializer(), name, None, text, values)
    else:
        define_path(values, name, None, text, named=field.metadata["path"] == "named")


def path_flags(values: flags.FlagValues) -> list[str]:
    """Returns the names of the flags that hold paths."""
    return [name for name in values if isinstance(values[name].parser, PathParser)]


def _require_file_systems(values: flags.FlagValues) -> None:
    """Raises DeepLabError where a flag holds a path with a scheme that TensorFlow has no file system for."""
    for name in path_flags(values):
        value = values[name].value
        for place in value if isinstance(value, list) else [value or ""]:
            if getattr(values[name].parser, "addresses", False) and files.is_address(place):
                continue
            for part in place.split(",") if isinstance(values[name].parser, PathListParser) else [place]:
                if ("checkpoint" in name or name == "teacher") and part.startswith(HUB):
                    continue
                if files.is_remote(part):
                    start_tensorflow()
                try:
                    files.path(part)
                except DeepLabError as error:
                    reason = str(error).removeprefix(f"{part}: ")
                    raise DeepLabError(f"--{name}={part}: {reason}") from None


def _shown(value: object) -> str:
    return ",".join(str(v) for v in value) if isinstance(value, tuple) else str(value)


def flags_of(config_class: type, names: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Returns field -> flag of a configuration. `names` gives fields another flag than theirs, or None: no flag."""
    own = {field.name: field.metadata["flag"] or field.name for field in dataclasses.fields(config_class)}
    return {field: flag for field, flag in {**own, **(names or {})}.items() if flag}


def define_flags(values: flags.FlagValues, config_class: type, names: Mapping[str, str | None] | None = None) -> None:
    """Defines one flag for each field of a configuration; a flag that is not given leaves the field alone.

    `names` is that of `flags_of`.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    for name, flag in flags_of(config_class, names).items():
        field = fields[name]
        default = "unset" if field.default is None else _shown(field.default)
        text = f"{field.metadata['help']} (default: {default})"
        with help_pages.grouped(values, field.metadata["group"]):
            _define_field(values, flag, field, text)
        vars(values[flag])["choices"] = choices_of(field.type)


def given(values: flags.FlagValues, config_class: type, names: Mapping[str, str | None] | None = None) -> dict:
    """Returns the fields of a configuration whose flags were given, lists split at commas. `names`: see `flags_of`."""
    found = {field: values[flag].value for field, flag in flags_of(config_class, names).items()}
    found = {name: value for name, value in found.items() if value is not None}
    lists = {n: tuple(p for v in value for p in v.split(",") if p) for n, value in found.items() if type(value) is list}
    return {**found, **lists}


# Flags of absl's logging, which the release's documented command lines give.
_LOGGING = ("logtostderr", "alsologtostderr")


def define_beam(values: flags.FlagValues, what: str, *, example: str) -> None:
    """Defines the flags of a command that can do `what`, a verb, in a pipeline of Apache Beam; help shows `example`."""
    with help_pages.grouped(values, "cluster"):
        runners = "DirectRunner, DataflowRunner, FlinkRunner, SparkRunner"
        text = f"{what} as an Apache Beam pipeline: {runners} (default: without)"
        flags.DEFINE_string("beam_runner", None, text, flag_values=values)
        text = f'for --beam_runner: the options of the runner, as in "{example}"'
        flags.DEFINE_multi_string("beam_options", [], text, flag_values=values)


def define_retired(values: flags.FlagValues, retired: Mapping[str, tuple[object, str]]) -> None:
    """Defines flags of the release that have lost their meaning: name -> (the release's default, reason).

    They are accepted, so that old command lines run; `retired_notes` says so where one is given.
    """
    with help_pages.grouped(values, "retired"):
        for name, (default, reason) in retired.items():
            shown = "unset" if default == () else _shown(default)
            text = f"accepted without effect: {reason} (default: {shown})"
            DEFINE[type(default)](name, None, text, flag_values=values)
        for name in _LOGGING:
            flags.DEFINE_boolean(name, None, "accepted: messages go to the terminal anyway", flag_values=values)


def retired_notes(values: flags.FlagValues, retired: Mapping[str, tuple[object, str]]) -> list[str]:
    """Returns one line for each flag of `define_retired` that was given."""
    given = {name: values[name].value for name in retired if values[name].value is not None}
    shown = {name: ",".join(value) if isinstance(value, list) else value for name, value in given.items()}
    return [f"--{name}={value} has no effect: {retired[name][1]}" for name, value in shown.items()]


def require(values: flags.FlagValues, *names: str) -> None:
    """Raises DeepLabError for the first of the flags `names` that was not given."""
    for name in names:
        if not values[name].value:
            raise DeepLabError(f"--{name} is missing; expected {help_pages.text_of(values[name])}")


_Subject = TypeVar("_Subject")


@dataclasses.dataclass(frozen=True)
class Use(Generic[_Subject]):
    """A rule: these flags do something only under a condition.

    Attributes:
      flags: their names.
      needs: the condition as it ends the sentence "it needs ...": --crf, --dataset=folder.
      met: returns whether it is met, from what `require_use` gets: the flags, or the command's configuration.
    """

    flags: tuple[str, ...]
    needs: str
    met: Callable[[_Subject], object]


def require_use(values: flags.FlagValues, rules: Iterable[Use[_Subject]], subject: _Subject) -> None:
    """Raises DeepLabError for a flag that was given and does nothing, by the rules of its command.

    One that is given with its default counts too: whoever gives it believes that it does something. The release's flags
    that do nothing today are no such flags, see `define_retired`.
    """
    for rule in rules:
        idle = [name for name in rule.flags if values[name].present]
        if idle and not rule.met(subject):
            value = values[idle[0]].value
            shown = ",".join(map(str, value)) if isinstance(value, list) else value
            raise DeepLabError(
                f"--{idle[0]}={shown} would do nothing: it needs {rule.needs}; leave it out or give that"
            )


def require_writable(values: flags.FlagValues, name: str) -> None:
    """Raises DeepLabError where the folder that the required flag `name` gives can be neither made nor written.

    To be called before any work is done for the folder; makes nothing.
    """
    place = str(values[name].value)
    if files.is_remote(place):
        _require_reachable(place, name, "choose another folder")
        return
    present = files.path(place).absolute()
    while not present.exists():
        present = present.parent
    if not present.is_dir() or not os.access(present, os.W_OK | os.X_OK):
        reason = f"no right to write to {present}" if present.is_dir() else f"{present} is a file"
        raise files.unwritable(place, reason, flag=f"--{name}", cure="choose another folder")


def _require_reachable(place: str, name: str, cure: str) -> None:
    """Raises DeepLabError where a file system of TensorFlow's cannot be asked for a place, or has no such bucket."""
    target = files.path(place)
    with files.writing(place, flag=f"--{name}", cure=cure):
        if target.parts[0] == "gs:" and not files.path(f"gs://{target.parts[1]}").exists():
            raise FileNotFoundError(2, "No such bucket", str(target))
        target.exists()


def require_writable_file(values: flags.FlagValues, name: str) -> None:
    """Raises DeepLabError where the file that the flag `name` gives, if any, cannot be written.

    That is a folder, or a file in a folder that does not exist. To be called before hours of work are done for the
    file; makes nothing.
    """
    place = values[name].value
    if not place:
        return
    if files.is_remote(str(place)):
        _require_reachable(str(place), name, "choose another file")
        return
    file = files.path(str(place)).absolute()
    if file.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK):
        reason = "it is a folder" if file.is_dir() else f"no folder {file.parent} that can be written"
        raise files.unwritable(str(place), reason, flag=f"--{name}", cure="choose another file")


def table(values: Mapping[str, object]) -> str:
    """Returns a two-column table of names and values without those that are None."""
    rows = {name: _shown(value) for name, value in values.items() if value is not None}
    width = max(map(len, rows), default=0)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items())


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Discards what libraries write to standard error during the context; their log level does not matter."""
    sys.stderr.flush()
    shown = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(shown, 2)
        os.close(shown)


def start_tensorflow() -> None:
    """Imports TensorFlow and finds its devices without the log lines that it prints at every log level."""
    with silenced():
        import tensorflow as tf

        tf.config.list_physical_devices()


def tell_exactness(allowed: bool = False, *, optional: bool = True) -> None:
    """Prints how exactly devices compute, where they have a choice; to be called when TensorFlow has started.

    Args:
      allowed: the value of --tf32.
      optional: whether the command has that flag.
    """
    from deeplab_tf.network.precision import exactness_line

    line = exactness_line(allowed, cure=" (--tf32 is faster)" if optional else "")
    if line:
        print(line)


def run(
    main: Callable[[flags.FlagValues], int | None],
    define: Callable[[flags.FlagValues], None],
    argv: Sequence[str] | None = None,
    *,
    rest_is: str | None = None,
    prepare: Callable[[flags.FlagValues], None] | None = None,
) -> None:
    """Parses the flags that `define` defines and ends the process with the status of `main`.

    Positional arguments are appended to the flag `rest_is`; without it they are an error. `prepare` is called with the
    flags before TensorFlow can have started, for what it reads once.

    A mistake of the user (DeepLabError, a flag that does not parse) is one line on standard error and status 1.
    `--help` prints the tool's text and flags, `--helpfull` all of them, `--help=GROUP` those of a group, with status 0
    and without importing TensorFlow. Control-C ends it with status 130.
    """
    argv = list(sys.argv if argv is None else argv)
    name = os.path.basename(argv[0]).removesuffix(".py")
    with ending(name):
        values = flags.FlagValues()
        values.set_gnu_getopt(True)
        define(values)
        asked = help_pages.asked_for(argv[1:])
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        try:
            if asked:
                print(help_pages.answer(name, sys.modules[main.__module__].__doc__ or "", values, asked))
                sys.exit(0)
            _parse(values, argv, rest_is)
            if prepare:
                prepare(values)
            _require_file_systems(values)
            status = main(values)
        except flags.UnrecognizedFlagError as error:
            print(f"{name}: {help_pages.unknown_flag(values, error.flagname)}", file=sys.stderr)
            status = 1
        except flags.Error as error:
            print(f"{name}: {str(error).splitlines()[0]} (--help lists the flags)", file=sys.stderr)
            status = 1
        except DeepLabError as error:
            print(f"{name}: {error}", file=sys.stderr)
            status = 1
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            print(f"{name}: {_shortage(error)}", file=sys.stderr)
            status = 1
        sys.exit(status or 0)


def _shortage(error: Exception) -> str:
    """Returns the line for a shortage of memory that no part of the program has named better."""
    asked = what_was_asked(error)
    return f"not enough memory ({asked}); end other programs, or choose smaller pictures, crops or a smaller network"


def _parse(values: flags.FlagValues, argv: Sequence[str], rest_is: str | None) -> None:
    rest = values(argv)[1:]
    if rest:
        if not rest_is:
            raise DeepLabError(f"unexpected argument {rest[0]!r}; every option is a flag, --name=value")
        values[rest_is].value = [*(values[rest_is].value or []), *map(values[rest_is].parser.parse, rest)]
