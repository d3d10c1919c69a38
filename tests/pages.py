"""The pages of the documentation, as Markdown: their links, anchors and command lines."""

import importlib
import pathlib
import re
import shlex

from absl import flags

from deeplab_tf.tools import cli, topics

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^( *)```(\w*).*?\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_ENDS = {"&&", "||", "|", ";", ">", "#", "\n"}
# Commands that take values without the name of a flag.
_TAKES_NAMES = {"predict", "describe", "verify", "published", "compare", "completion", "classify"}


def text(page: pathlib.Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: pathlib.Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", text(page))


def between(page: pathlib.Path, marker: str) -> str:
    """What stands between the comments <!-- marker --> and <!-- /marker -->."""
    found = re.search(rf"<!-- {marker} -->\n(.*)<!-- /{marker} -->", text(page), re.DOTALL)
    assert found, f"{page}: {marker}"
    return found[1]


def links(page: pathlib.Path) -> list[tuple[str, str]]:
    """The file, empty for the page itself, and the anchor of every link that leads to no other host."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [(file, anchor) for target in found if "://" not in target for file, _, anchor in [target.partition("#")]]


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of the headings, as GitHub and the site make them."""
    heads = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


def blocks(page: pathlib.Path) -> list[str]:
    """The contents of the fenced blocks, without those of Python."""
    return [body for _, language, body in _FENCE.findall(text(page)) if language != "python"]


def commands(page: pathlib.Path) -> list[list[str]]:
    """Every command line of the page: its name and what is given; in prose those that begin with deeplab-tf."""
    inline = [line.replace("\n", " ") for line in re.findall(r"`(deeplab-tf [^`]*)`", prose(page))]
    lines = [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in [*inline, *lines]:
        if "deeplab-tf " not in line or "deeplab-tf-" in line:
            continue
        words = shlex.split(re.sub(r"[\[\]]", "", line), comments=True)
        while "deeplab-tf" in words:
            words = words[words.index("deeplab-tf") + 1 :]
            end = next((place for place, word in enumerate(words) if word in _ENDS), len(words))
            found.append([word for word in words[:end] if word != "..."])
    return [command for command in found if command]


def flags_of(command: str) -> flags.FlagValues:
    """The flags that a command defines."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    importlib.import_module(f"deeplab_tf.tools.{cli.file_of(command)}").define(values)
    return values


def require_parsed(command: list[str]) -> None:
    """Fails where the command line does not parse, or where words are left over."""
    name, *given = command
    if name == "help":
        assert not given or given[0] == "TOPIC" or "-".join(given) in {*cli.COMMANDS, *topics.TOPICS}, command
        return
    assert name in cli.COMMANDS, command
    rest = flags_of(name)(["deeplab-tf", *(word for word in given if not word.startswith("--help"))])[1:]
    assert not rest or name in _TAKES_NAMES, f"{command}: {rest}"
