"""What docs/architecture.md says is so: its files exist, and its floors are those that the imports are held to."""

import pathlib
import re

from test_architecture_rules import FLOORS

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_file_named_exists():
    named = set(re.findall(r"`((?:deeplab_tf|tools|configs|checkpoints|tests)/[\w/.]*)`", TEXT))
    assert "deeplab_tf/network/backbone.py" in named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_links_exist():
    assert all((ROOT / "docs" / target).is_file() for target in re.findall(r"\]\(([^)#]+)\)", TEXT))


def test_the_floors_are_the_enforced_ones():
    table = re.search(r"<!-- floors -->\n(.*)<!-- /floors -->", TEXT, re.DOTALL)[1]
    rows = [re.findall(r"`(\w+)`", line.split("|")[2]) for line in table.splitlines()[2:]]
    enforced = [set(rooms) - {"checkpoints"} for rooms in FLOORS]
    assert [set(row) for row in reversed(rows)] == [rooms for rooms in enforced if rooms]


def test_the_picture_shows_every_floor():
    picture = re.search(r"```\n(.*?)```", TEXT, re.DOTALL)[1]
    lines = [re.findall(r"\w+", line) for line in picture.splitlines()]
    shown = [set(line) for line in lines if line]
    assert list(reversed(shown)) == [set(rooms) - {"checkpoints"} for rooms in FLOORS if set(rooms) != {"checkpoints"}]
