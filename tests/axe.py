"""axe-core, which finds what people with a keyboard, a reader of the screen or weak eyes cannot use in a page."""

import importlib.resources
import json

_RUN = """axe.run().then((found) => JSON.stringify(found.violations.map(
  (one) => [one.id, one.nodes.map((node) => node.html.slice(0, 200))])))"""


def violations(page) -> list:
    """Returns the rules that the page of a browser violates, each with where it does."""
    page.run((importlib.resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8") + ";0")
    return json.loads(page.run(_RUN))
