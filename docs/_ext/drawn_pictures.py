"""The pictures of the chapters, drawn by docs/pictures.py when the site is built, into docs/_pictures.

One public function for each picture, ``NAME(path)``. They are drawn again when docs/pictures.py or tinygen/viz has
changed, so that no picture is older than the code that draws it.
"""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

from sphinx.util import logging

logger = logging.getLogger(__name__)


def _changed(root: Path) -> float:
    return max(path.stat().st_mtime for path in [root / "docs/pictures.py", *(root / "tinygen/viz").glob("*.py")])


def draw(app: Any) -> None:
    """Draw what is missing or older than its code."""
    root = Path(app.confdir).parent
    script = root / "docs/pictures.py"
    if not script.exists():
        return
    spec = importlib.util.spec_from_file_location("pictures", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = Path(app.srcdir) / "_pictures"
    folder.mkdir(exist_ok=True)
    newest = _changed(root)
    for name, function in inspect.getmembers(module, inspect.isfunction):
        path = folder / f"{name}.png"
        if function.__module__ != "pictures" or name.startswith("_"):
            continue
        if not path.exists() or path.stat().st_mtime < newest:
            logger.info("drawing %s", name)
            function(path)
            if not path.exists():
                logger.warning("docs/pictures.py: %s wrote no %s", name, path.name)


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
