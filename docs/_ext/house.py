"""``{house}``: the diagram of the house, floor by floor, and the check that imports do run downwards.

The floors are written here; what imports what is read from the source. An import that goes up, or a folder without a
place, is a warning, and so the end of a build with -W.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from located import ROOT, locate, tree_of
from source_pages import link, note_path
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

# From the top down: (what it is about, {part: what a reader finds there}). Parts stand below those that import them,
# and on one floor to the left of them.
FLOORS: list[tuple[str, dict[str, str]]] = [
    ("lessons to run", {"demos": "one script per system: reads as a lesson, runs as a program"}),
    ("judges", {"metrics": "Fréchet distance, MMD, likelihoods, precision and recall"}),
    (
        "systems and tools",
        {
            "models": "autoencoders, VAEs, GANs, diffusion",
            "training": "the loop, checkpoints, the log",
            "viz": "pictures, and the graph of a computation",
            "testing": "gradient checks; a stand-in for a GPU",
        },
    ),
    (
        "what learns, and from what",
        {
            "nn": "layers that own parameters",
            "optim": "SGD, RMSprop, Adam, schedules, EMA",
            "distributions": "Normal, Bernoulli, Categorical, KL",
            "data": "digits, MNIST, toys, the loader",
        },
    ),
    (
        "formulas",
        {
            "random": "generators, one stream per device",
            "ops": "every formula with its vjp",
        },
    ),
    (
        "the tape",
        {
            "tensor": "an array, and the step that made it",
            "autograd": "the backward sweep",
            "op": "how an op and its vjps are declared",
        },
    ),
    (
        "arrays",
        {
            "backend": "NumPy or CuPy: which library an array belongs to",
            "kernels": "the fast versions of what ops define",
        },
    ),
]


def order() -> list[str]:
    """Every part, from the lowest floor up and from left to right."""
    return [part for _, parts in reversed(FLOORS) for part in parts]


def imports() -> dict[str, set[str]]:
    """Part → the parts that it imports, as the source says."""
    found: dict[str, set[str]] = {}
    parts = set(order())
    for path in [*(ROOT / "tinygen").rglob("*.py"), *(ROOT / "demos").rglob("*.py")]:
        names = path.relative_to(ROOT).with_suffix("").parts
        me = names[0] if names[0] == "demos" else names[1]
        if me not in parts:
            continue
        wanted = found.setdefault(me, set())
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tinygen":
                inside = node.module.split(".")[1:2] or [alias.name for alias in node.names]
                wanted.update(name for name in inside if name in parts and name != me)
    return found


def problems() -> Iterator[str]:
    """What the diagram says and the source does not."""
    place = {part: i for i, part in enumerate(order())}
    for part, wanted in sorted(imports().items()):
        for other in sorted(wanted):
            if place[other] > place[part]:
                yield f"tinygen.{part} imports tinygen.{other}, which stands above it"
    for folder in sorted((ROOT / "tinygen").iterdir()):
        if (folder / "__init__.py").exists() and folder.name not in {*place, "cuda"}:
            yield f"tinygen/{folder.name} is on no floor of docs/_ext/house.py"


class House(SphinxDirective):
    """The floors, from the top down."""

    def run(self) -> list[nodes.Node]:
        """A box for each part, with a link to its first line."""
        for problem in problems():
            logger.warning("house: %s", problem, location=self.get_location())
        out = nodes.container(classes=["house"])
        for title, parts in FLOORS:
            floor = nodes.container("", nodes.paragraph("", title, classes=["floor-name"]), classes=["floor"])
            for part, text in parts.items():
                found = locate(part if part == "demos" else f"tinygen.{part}")
                note_path(self.env, found.path)
                name = nodes.paragraph("", "", link(self.env.docname, found, part), classes=["part-name"])
                floor += nodes.container("", name, nodes.paragraph("", text), classes=["part"])
            out += floor
        return [out]


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("house", House)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
