"""The pages that `--help`, `--helpfull` and `deeplab-tf help` print: a command's text and its flags by groups."""

import contextlib
import difflib
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from absl import flags

from deeplab_tf.config.groups import GROUPS
from deeplab_tf.errors import unknown_name

_WORD = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")  # of a command line, quotes kept whole
_NARROWEST, _WIDEST = 40, 100


@contextlib.contextmanager
def grouped(values: flags.FlagValues, group: str) -> Iterator[None]:
    """Puts the flags that are defined during the context into a group of `GROUPS`."""
    before = set(values)
    yield
    for name in set(values) - before:
        vars(values[name])["group"] = group


def put_first(values: flags.FlagValues, names: Sequence[str]) -> None:
    """Makes `--help` describe these flags alone, those that matter most, in this order; the others it names."""
    for name in values:
        vars(values[name]).pop("place", None)
    for place, name in enumerate(names):
        vars(values[name])["place"] = place


def leave_out(values: flags.FlagValues, names: Iterable[str]) -> None:
    """Leaves flags out of the pages, of what is meant and of completion: the command refuses them, and says why."""
    for name in names:
        vars(values[name])["left_out"] = True


def listed(values: flags.FlagValues) -> list[str]:
    """Returns the names of the flags as they were defined, without those of `leave_out`."""
    return [name for name in values if not vars(values[name]).get("left_out")]


def by_group(values: flags.FlagValues) -> dict[str, list[str]]:
    """Returns group -> its flags as they were defined; groups in the order of `GROUPS`, without empty ones."""
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name in listed(values):
        found[vars(values[name]).get("group", "what")].append(name)
    return {group: names for group, names in found.items() if names}


def text_of(flag: flags.Flag) -> str:
    """Returns the help of a flag without what absl adds to it: how lists are given, and choices as <a|b>."""
    told = re.sub(r";\s+repeat this option to specify a list of values$", "", flag.help or "")
    parser = flag.parser
    if isinstance(parser, flags.EnumParser):
        told = f"{', '.join(parser.enum_values)}: {told.partition('>: ')[2]}"
    return told


def width() -> int:
    """Returns the columns that a page may take."""
    return min(_WIDEST, max(_NARROWEST, shutil.get_terminal_size().columns))


def _filled(text: str, columns: int, indent: str = "", hanging: str | None = None) -> list[str]:
    after = indent if hanging is None else hanging
    return textwrap.wrap(
        text, columns, initial_indent=indent, subsequent_indent=after, break_long_words=False, break_on_hyphens=False
    )


def _command(line: str, columns: int) -> list[str]:
    """Returns a command line in as many lines as it needs, each but the last with a backslash at its end."""
    lines = [" "]
    for word in _WORD.findall(line):
        if len(lines[-1]) + 1 + len(word) + 2 > columns and lines[-1].strip():
            lines.append("   ")
        lines[-1] += f" {word}"
    return [*(f"{part} \\" for part in lines[:-1]), lines[-1]]


def _block(lines: Sequence[str], columns: int) -> list[str]:
    """Returns indented lines, commands or commands with remarks in a second column, within so many columns."""
    if max(map(len, lines)) <= columns:
        return list(lines)
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    shown: list[str] = []
    for line in joined:
        command, _, remark = re.sub(r"(\S)\s{3,}(?=\w)", r"\1\n", line.strip(), count=1).partition("\n")
        shown += [*_command(command, columns), *_filled(remark, columns, " " * 6)]
    return shown


def text(doc: str, columns: int) -> str:
    """Returns a text of paragraphs and indented blocks within so many columns; no word is cut."""
    shown: list[str] = []
    for paragraph in re.split(r"\n\s*\n", doc.strip("\n")):
        lines = paragraph.splitlines()
        indented = all(line.startswith("  ") for line in lines)
        shown += [*(_block(lines, columns) if indented else _filled(" ".join(lines), columns)), ""]
    return "\n".join(shown[:-1])


def _spelled(values: flags.FlagValues, name: str) -> str:
    return f"--[no]{name}" if values[name].boolean else f"--{name}"


def _described(values: flags.FlagValues, names: Iterable[str], columns: int) -> list[str]:
    shown: list[str] = []
    for name in names:
        shown += [f"  {_spelled(values, name)}", *_filled(text_of(values[name]), columns, " " * 6)]
    return shown


def page(command: str, doc: str, values: flags.FlagValues, *, full: bool) -> str:
    """Returns the page of a command.

    Args:
      command: what the user calls it by.
      doc: what it does, with examples.
      values: its flags; without any of `put_first` all are described in either page.
      full: whether those that do not come first are described too, and not only named.
    """
    columns = width()
    placed = [name for name in listed(values) if "place" in vars(values[name])]
    first = sorted(placed, key=lambda name: vars(values[name])["place"])
    lines = [text(doc, columns), "", "Flags:", *_described(values, first, columns)]
    rest = by_group(values)
    rest = {group: [name for name in names if name not in first] for group, names in rest.items()}
    rest = {group: names for group, names in rest.items() if names}
    if not first and len(rest) == 1:
        return "\n".join([*lines, *_described(values, next(iter(rest.values())), columns)])
    if first and not full:
        more = f"More flags. --helpfull describes all, `{command} --help=GROUP` those of a group, named in parentheses:"
        lines += ["", *_filled(more, columns)]
    for group, names in rest.items():
        if full or not first:
            lines += ["", f"{GROUPS[group]}:", *_described(values, names, columns)]
        else:
            spelled = " ".join(_spelled(values, name) for name in names)
            lines += ["", f"{GROUPS[group]} ({group}):", *_filled(spelled, columns, "  ")]
    return "\n".join(lines)


def group_page(values: flags.FlagValues, group: str) -> str:
    """Returns the flags of one group; DeepLabError where the command has none of it."""
    found = by_group(values)
    if group not in found:
        raise unknown_name("group of flags", group, found)
    return "\n".join([f"{GROUPS[group]}:", *_described(values, found[group], width())])


def _nearest(values: flags.FlagValues, name: str) -> list[str]:
    """Returns the flags that somebody may have meant, at most three: those that have all its words, then the alike."""
    asked = set(name.lower().replace("-", "_").split("_"))
    known = listed(values)
    whole = sorted((other for other in known if asked <= set(other.split("_"))), key=lambda other: other.count("_"))
    alike = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.7)
    return list(dict.fromkeys([*whole, *alike]))[:3]


def unknown_flag(values: flags.FlagValues, name: str) -> str:
    """Returns the message for a flag that the command does not have; it names the nearest."""
    found = str(flags.UnrecognizedFlagError(name, suggestions=_nearest(values, name)))
    return found if "?" in found else f"{found} (--help lists the flags)"


def asked_for(words: Sequence[str]) -> str | None:
    """Returns which help a command line asks for: short, full, or the group of --help=GROUP; None: it does not."""
    for word in words:
        name, _, group = word.removeprefix("-").removeprefix("-").partition("=")
        if word.startswith("-") and name in ("help", "h", "helpfull", "helpshort"):
            return group or ("full" if name == "helpfull" else "short")
    return None


def answer(command: str, doc: str, values: flags.FlagValues, asked: str) -> str:
    """Returns the page that a command line asks for, by `asked_for`; `command` and `doc` are those of `page`."""
    if asked in ("short", "full"):
        return page(command, doc, values, full=asked == "full")
    return group_page(values, asked)
