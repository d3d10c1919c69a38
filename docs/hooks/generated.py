"""MkDocs' hook: adds the pages that are made from the code or lie outside of docs, and mends their links."""

import pathlib
import re

import api_pages
import flag_pages
import notebook_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from deeplab_tf.tools import cli

ROOT = pathlib.Path(__file__).parents[2]
# Files beside docs -> their pages.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}

_FLAGS = "reference/flags/index.md"
_NOTEBOOKS = "notebooks"
_CODE = re.compile(r"(<code>)([^<]*)</code>")


def _inside(text: str) -> str:
    """Returns the text of a file of the checkout's root with links as they are from the root of docs."""

    def target(match: re.Match[str]) -> str:
        place = re.sub(r"\.ipynb$", ".md", match[1].removeprefix("docs/"))
        return f"]({OUTSIDE.get(place, place)}{match[2] or ''})"

    return re.sub(r"\]\((?![a-z]+://)([^)#]+)(#[^)]*)?\)", target, text)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the pages that are made from the code into the navigation."""
    reference = next(entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    for entry in reference:
        if isinstance(entry, dict) and "Commands and flags" in entry:
            entry["Commands and flags"] = [_FLAGS, *(_flag_page(command) for command in cli.COMMANDS)]
        if isinstance(entry, dict) and "Python" in entry:
            entry["Python"] = [_api_page(title) for title in api_pages.GROUPS]
    return config


def _flag_page(command: str) -> str:
    return f"reference/flags/{command}.md"


def _api_page(title: str) -> str:
    return f"reference/api/{api_pages.GROUPS[title][0]}.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    pages = {page: _inside((ROOT / name).read_text(encoding="utf-8")) for name, page in OUTSIDE.items()}
    pages["index.md"] = f"---\nhide: [navigation]\n---\n{pages['index.md']}"
    pages[_FLAGS] = flag_pages.overview()
    pages |= {_flag_page(command): flag_pages.page(command) for command in cli.COMMANDS}
    pages |= {_api_page(title): api_pages.page(title) for title in api_pages.GROUPS}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for name, path in notebook_pages.notebooks().items():
        text, pictures = notebook_pages.page(path)
        files.append(File.generated(config, f"{_NOTEBOOKS}/{name}.md", content=text))
        for picture, content in pictures.items():
            files.append(File.generated(config, f"{_NOTEBOOKS}/{picture}", content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Leads links to files beside docs to their pages."""
    for name, page in OUTSIDE.items():
        markdown = re.sub(rf"\]\(((?:\.\./)+){re.escape(name)}", lambda m, page=page: f"]({m[1][3:]}{page}", markdown)
    return markdown


def on_page_content(html: str, **_: object) -> str:
    """Keeps words of code whole: browsers break a line after the hyphens of a flag."""
    parts = re.split(r"(<pre\b.*?</pre>)", html, flags=re.DOTALL)
    return "".join(_block(part) if part.startswith("<pre") else re.sub(_CODE, _line, part) for part in parts)


def _line(match: re.Match[str]) -> str:
    return f"{match[1]}{' '.join(map(_word, match[2].split(' ')))}</code>"


def _block(html: str) -> str:
    return "".join(map(_word, re.split(r'(<span class="w">[^<]*</span>|\n)', html)))


def _word(html: str) -> str:
    """Returns a word of code as one that is broken only where it is longer than a line, if it has hyphens."""
    shown = re.sub("<.*?>", "", html)
    whole = "<pre" not in html and html.count("<span") == html.count("</span")
    return f'<span class="word">{html}</span>' if "-" in shown and whole else html
