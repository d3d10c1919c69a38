"""The site: it builds without a warning, opens without a network, and its generated pages are complete."""

import os
import pathlib
import re
import subprocess
import sys

import pages
import pytest
from chromium import chromium, find_chromium

import deeplab_tf
from deeplab_tf.tools import cli, help_pages

sys.path.insert(0, str(pages.ROOT / "docs" / "hooks"))
import api_pages
import flag_pages
import notebook_pages
import release_flags
from test_release_command_lines import FLAGS, RETIRED

RELEASE = pages.ROOT / "docs" / "coming-from" / "research_deeplab.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> pathlib.Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # A new major version of MkDocs is announced on the terminal, which is no warning of this build.
    environment = {**os.environ, "PYTHONPATH": str(pages.ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=pages.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.heavy
def test_the_site_is_whole_and_needs_no_network(site):
    built = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    docs = pages.ROOT / "docs"
    written = {path.relative_to(docs).with_suffix(".html").as_posix() for path in docs.rglob("*.md")}
    assert written | {"index.html", "changelog.html", "reference/flags/train.html", "reference/api/use.html"} <= built
    navigation = (site / "reference/zoo.html").read_text(encoding="utf-8")
    assert all(f"flags/{command}.html" in navigation for command in cli.COMMANDS)
    for name in built:
        text = (site / name).read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="((?:https?:)?//[^"]*)"', text)
        assert not fetched, f"{name}: {fetched[:3]}"
        # What stands in angle brackets, as a name to fill in, is no element: the page would not show it.
        unclosed = set(re.findall(r"<(\w+)>", text)) - set(re.findall(r"</(\w+)>", text)) - {"br", "hr", "wbr"}
        assert not unclosed, f"{name}: {unclosed}"
        if not name.startswith("404"):
            check_links(site, site / name, text)


@pytest.mark.heavy
@pytest.mark.skipif(find_chromium() is None, reason="no chromium: apt-get install chromium-headless-shell")
def test_the_site_works_as_files_in_a_browser(site, tmp_path):
    with chromium(tmp_path) as page:
        page.size(1280, 900, dark=True)
        page.open((site / "faq.html").as_uri() + "?q=stride")
        found = page.wait("document.querySelector('.md-search-result__item h1')?.textContent")
        assert found == "Why stride and rate belong together"
        assert page.run("document.body.dataset.mdColorScheme") == "slate"
        page.size(390, 844)
        for name in ("index", "faq", "reference/flags/train", "how-to/own_data", "coming-from/research_deeplab"):
            page.open((site / f"{name}.html").as_uri())
            assert page.run("document.documentElement.scrollWidth") == 390, name
        assert page.complaints() == []


def check_links(site: pathlib.Path, page: pathlib.Path, text: str):
    """Links and pictures of a built page lead to files of the site."""
    for target in re.findall(r'(?:src|href)="([^"#:?]+)(?:[#?][^"]*)?"', text):
        assert (page.parent / target).resolve().is_relative_to(site.resolve()), f"{page}: {target}"
        assert (page.parent / target).exists(), f"{page}: {target}"


def test_every_page_is_in_the_navigation():
    nav = pages.text(pages.ROOT / "mkdocs.yml").partition("\nnav:\n")[2]
    listed = re.findall(r"[\w/-]+\.md", nav)
    assert len(listed) == len(set(listed))
    docs = pages.ROOT / "docs"
    written = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    assert set(listed) == written | {f"notebooks/{name}.md" for name in notebook_pages.notebooks()} | {
        "index.md",
        "changelog.md",
        "contributing.md",
        "security.md",
        "reference/flags/index.md",
    }


def test_every_public_name_has_its_place():
    named = [name for _, _, names, _ in api_pages.GROUPS.values() for name in names]
    assert sorted([*named, "__version__"]) == sorted(deeplab_tf.__all__)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_flag_is_on_the_page_of_its_command(command):
    page = flag_pages.page(command)
    shown = re.findall(r"^\| `--(?:\[no\])?([\w-]+)` \| (.+?) \| .* \|$", page, re.MULTILINE)
    assert sorted(name for name, _ in shown) == sorted(help_pages.listed(pages.flags_of(command)))
    assert all(text.strip() for _, text in shown)
    assert "repeat this option" not in page


# ---- coming from research/deeplab


@pytest.mark.parametrize("script", release_flags.SCRIPTS)
def test_the_tables_of_the_scripts_are_printed_from_the_flags(script):
    assert pages.between(RELEASE, re.escape(script)) == release_flags.table(script), (
        "python docs/hooks/release_flags.py writes them anew"
    )


@pytest.mark.parametrize("command", FLAGS)
def test_every_flag_of_the_release_is_told(command):
    script = release_flags.SCRIPTS[f"{command}.py"]
    assert set(script.flags) == set(FLAGS[command]) | set(RETIRED[command])
    same = {flag for flag in script.flags if flag not in script.mapped and flag not in script.retired}
    defaults = {flag: default for flag, (default, _, _) in FLAGS[command].items()}
    for flag in same:
        default = defaults[flag]
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        assert script.flags[flag] == ("" if default is None else shown), flag


def test_the_flags_of_export_are_those_of_the_release(shared):
    text = (shared / "reference" / "official_release.md").read_text(encoding="utf-8")
    table = text.partition("### 6.3 export_model")[2].partition("Graph:")[0]
    listed = {name for line in table.splitlines()[2:] for name in re.findall(r"^\| ([\w, ]+?) \|", line)}
    names = {name for cell in listed for name in cell.split(", ")} - {"Flag"}
    assert names <= set(release_flags.SCRIPTS["export_model.py"].flags)
    assert "save_inference_graph" in names
