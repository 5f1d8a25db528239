"""MathJax 3 beside the pages, so that formulas are set without a network.

The package sphinx-mathjax-offline holds the files. Its own extension copies all 24 MB of them into every site; a
page needs the script and its fonts, 2 MB.
"""

from importlib.util import find_spec
from pathlib import Path
from shutil import copy2, copytree
from typing import Any

SCRIPT, FONTS = "tex-chtml-full.js", "output/chtml/fonts/woff-v2"


def _choose(app: Any, config: Any) -> None:
    config.mathjax_path = f"mathjax/{SCRIPT}"


def _copy(app: Any, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    spec = find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise RuntimeError('MathJax is not installed; python -m pip install -e ".[docs]"')
    source = Path(spec.origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    (target / FONTS).mkdir(parents=True, exist_ok=True)
    copy2(source / SCRIPT, target / SCRIPT)
    copytree(source / FONTS, target / FONTS, dirs_exist_ok=True)


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("config-inited", _choose, priority=900)
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
