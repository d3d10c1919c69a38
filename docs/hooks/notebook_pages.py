"""The notebooks of docs/notebooks: their pages on the site, and how they are run.

`python docs/hooks/notebook_pages.py NAME...` runs notebooks (all, without a name) and stores what their cells give.
Where the variables that they name say what to take in place of downloads, they need no network.
"""

import base64
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator

import nbformat

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
NOT_RUN = "skip-execution"  # nbclient's tag; that of the line that installs
_SUFFIXES = {"image/jpeg": "jpg", "image/png": "png"}
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def notebooks() -> dict[str, pathlib.Path]:
    """Returns the files of the notebooks by their names."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}


def shown(text: str) -> str:
    """Returns what a terminal shows of a text in the end: bars that were drawn again and again are there once."""
    lines = [re.split(r"\r", line.rstrip("\r"))[-1].rstrip() for line in _CONTROL.sub("", text).split("\n")]
    return "\n".join(lines)


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _outputs(name: str, number: int, cell: nbformat.NotebookNode, pictures: dict[str, bytes]) -> Iterator[str]:
    """Yields the Markdown of what a cell has given, and adds its pictures to `pictures`."""
    printed = []
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        kind = next((kind for kind in _SUFFIXES if kind in data), None)
        if output.output_type == "error":
            raise ValueError(f"{name}.ipynb: cell {number} has ended with an error: {output.ename}: {output.evalue}")
        if kind:
            file = f"{name}/{number}-{len(pictures)}.{_SUFFIXES[kind]}"
            pictures[file] = base64.b64decode(data[kind])
            yield f"![{cell.metadata.get('alt', 'What the cell gives')}]({file})"
        else:
            printed.append((output.get("text") or data["text/plain"]).rstrip("\n"))
    if printed:
        yield _fenced("\n".join(printed), "{ .text .output }")


def page(path: pathlib.Path) -> tuple[str, dict[str, bytes]]:
    """Returns the page of a notebook as Markdown, and its pictures by their paths from the page's folder.

    Raises:
      ValueError: a cell has ended with an error.
    """
    pictures: dict[str, bytes] = {}
    parts = []
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "markdown":
            parts.append(re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", cell.source))
        else:
            shell = cell.source.startswith(("!", "%"))
            parts += [_fenced(cell.source, "bash" if shell else "python")]
            parts += _outputs(path.stem, number, cell, pictures)
    title, _, text = "\n\n".join(parts).partition("\n")
    return f"{title}\n\n[Download the notebook]({path.name})\n{text}\n", pictures


def executed(path: pathlib.Path, folder: pathlib.Path) -> nbformat.NotebookNode:
    """Returns a notebook that has run in a folder, with what its cells have given.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell fails.
    """
    import nbclient

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=600, coalesce_streams=True, resources=resources).execute()
    return notebook


def _store(path: pathlib.Path) -> None:
    """Runs a notebook in an empty folder and writes it with its outputs, without what differs from run to run."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(path, pathlib.Path(folder))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":  # the log lines of TensorFlow are of the machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", ()):
            if "text" in output:
                output.text = shown(output.text)
            data = output.get("data", {})
            if "text/plain" in data:
                data["text/plain"] = shown(data["text/plain"])
                data.pop("text/html", None)
            if "image/jpeg" in data:
                data.pop("image/png", None)  # Pillow's pictures give both
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for one in sys.argv[1:] or notebooks():
        _store(notebooks()[one])
