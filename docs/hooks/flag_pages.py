"""The pages of the flags: one a command, from what the command defines."""

import importlib
import re

from absl import flags
from release_flags import defined, released

from deeplab_tf.config.groups import GROUPS
from deeplab_tf.tools import cli, help_pages

_DEFAULT = re.compile(r"^(.*?)(?:[;,.]? ?\(default: (.*)\))?$", re.DOTALL)


def _cell(text: str) -> str:
    """Returns a text as the cell of a table: what Markdown or HTML would read is taken literally."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([|*_`\[\]])", r"\\\1", plain)


def _row(name: str, flag: flags.Flag, known: set[str]) -> str:
    told = help_pages.text_of(flag)
    found = _DEFAULT.match(told)
    text, default = found.groups() if found else (told, None)
    if default is None and flag.default not in (None, "", []):
        default = ",".join(map(str, flag.default)) if isinstance(flag.default, list) else str(flag.default)
    shown = f"--[no]{name}" if flag.boolean else f"--{name}"
    origin = "release" if name in known else ""
    return f"| `{shown}` | {_cell(text)} | {_cell(default or '')} | {origin} |\n"


def _usage(command: str) -> str:
    """Returns the text of the command's help, its examples as code."""
    module = importlib.import_module(f"deeplab_tf.tools.{cli.file_of(command)}")
    lines = (module.__doc__ or "").strip().splitlines()
    parts: list[str] = []
    code: list[str] = []
    for line in [*lines, ""]:
        if line.startswith("  "):
            code.append(line[2:])
            continue
        if code:
            parts += ["", "```bash", *code, "```", ""]
            code = []
        # What stands between backticks is literal already.
        outside = [part.replace("<", "&lt;") if place % 2 == 0 else part for place, part in enumerate(line.split("`"))]
        parts.append("`".join(outside))
    return "\n".join(parts)


def page(command: str) -> str:
    """Returns the page of a command as Markdown."""
    values = defined(command)
    known = released(command)
    tables: list[str] = []
    groups = help_pages.by_group(values)
    for group, names in groups.items():
        rows = [_row(name, values[name], known) for name in sorted(names)]
        heading = f"\n### {GROUPS[group]}\n" if len(groups) > 1 else ""
        tables.append(f"{heading}\n| flag | what it does | default | |\n| --- | --- | --- | --- |\n{''.join(rows)}")
    remark = "\nFlags of the release's script are marked.\n" if known & set(values) else ""
    return f"# {command}\n\n{_usage(command)}\n\n## Flags\n{remark}{''.join(tables)}"


def overview() -> str:
    """Returns the page that lists the commands."""
    rows = [f"| [{name}]({name}.md) | {_cell(text)} |\n" for name, text in cli.COMMANDS.items()]
    return (
        "# Commands and flags\n\n"
        "A list is given with commas or by repeating its flag: `--atrous_rates=6,12,18`. `--name` and `--noname` set a "
        "flag that is on or off. Paths may be local, start with `~`, or lie in a bucket (`gs://...`). A flag that does "
        "nothing is an error.\n\n| command | what it does |\n| --- | --- |\n" + "".join(rows)
    )
