"""Write down what CuPy has: the names, parameters and methods that the strict stand-in goes by.

    python -m tinygen_tests.tools.cupy_names            # rewrites tinygen/testing/strict/cupy_names.txt

Needs CuPy of the version below and no GPU: ``import cupy`` works without one, and everything here is read off by
``dir`` and ``inspect.signature``. CuPy's compiled functions carry their parameters in the first line of their
docstring. tinygen_tests/testing/strict/test_names.py compares the file with the CuPy that is installed, where one is.
"""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

VERSION = "14.2.0"
TARGET = Path(__file__).parents[2] / "tinygen" / "testing" / "strict" / "cupy_names.txt"

# The parts of CuPy whose names are listed; of modules and classes found within them the name alone is.
PARTS = """
    cupy cupy.ndarray cupy.ufunc cupy.linalg cupy.fft cupy.random cupy.random.Generator cupy.lib
    cupy.lib.stride_tricks cupy.cuda cupy.cuda.Device cupy.cuda.Stream cupy.cuda.Event cupy.cuda.MemoryPool
    cupy.cuda.runtime
""".split()

HEADER = f"""\
# What CuPy {VERSION} has: one line for each public name, with its kind and, where it can be called, its parameters.
# Written by `python -m tinygen_tests.tools.cupy_names`; not edited by hand. {{at}} marks ufuncs with .at().
"""


def names() -> list[str]:
    """The lines of the file, from the CuPy that is installed."""
    import cupy

    # All parts first: cupy.random.Generator appears in cupy.random when it is first asked for.
    owners = {part: functools.reduce(getattr, part.split(".")[1:], cupy) for part in PARTS}
    lines = []
    for part, owner in owners.items():
        for name in sorted(dir(owner)):
            if not _listed(name, part):
                continue
            static = inspect.getattr_static(owner, name)
            value = getattr(owner, name)
            kind = _kind(static, value, cupy)
            if part == "cupy.cuda.runtime" and kind != "function":
                continue  # hundreds of constants, which differ from one CUDA to the next
            text = f"{part}.{name} {kind}"
            if kind == "function" and not name.startswith("__"):
                text += " " + _parameters(value, name)
            if kind == "ufunc" and value._scatter_op is not None:
                text += " {at}"
            lines.append(text)
    return lines


def _listed(name: str, part: str) -> bool:
    """Public names, and the special methods of arrays that code can run into without naming them."""
    if not name.startswith("_"):
        return name not in ("annotations", "np")  # imports of CuPy's own
    own = name not in ("__pyx_vtable__", "__slots__") and not hasattr(object, name)
    return part == "cupy.ndarray" and name.startswith("__") and own


def _kind(static: Any, value: Any, cupy: Any) -> str:
    if isinstance(value, cupy.ufunc):
        return "ufunc"
    if isinstance(value, ModuleType):
        return "module"
    if isinstance(value, type):
        return "class"
    if isinstance(static, property) or type(static).__name__ in ("getset_descriptor", "member_descriptor"):
        return "property"
    return "function" if callable(value) else "value"


def _parameters(value: Any, name: str) -> str:
    """``(a, axis=None, out=None)``: without types, and without the C types of compiled code."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return _from_docstring(value, name)
    parts, star = [], False
    positional = [p for p in signature.parameters.values() if p.kind is p.POSITIONAL_ONLY]
    for p in signature.parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            star = True
            parts.append(f"*{p.name}")
            continue
        if p.kind is p.VAR_KEYWORD:
            parts.append(f"**{p.name}")
            continue
        if p.kind is p.KEYWORD_ONLY and not star:
            star = True
            parts.append("*")
        parts.append(p.name if p.default is p.empty else f"{p.name}={_default(p.default)}")
        if positional and p is positional[-1]:
            parts.append("/")
    return f"({', '.join(parts)})"


def _default(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)


def _from_docstring(value: Any, name: str) -> str:
    first = (value.__doc__ or "").strip().partition("\n")[0]
    found = re.search(re.escape(name) + r"\((.*)\)", first)
    if found is None:
        return "(*args, **kwargs)"
    parts = []
    for part in re.sub(r"\[.*?\]|\(.*?\)", "()", found[1]).split(", "):
        left, equals, default = part.partition("=")
        left = left.split()[-1] if left.strip() else left  # "int axis" → "axis"
        parts.append(left + equals + default.rpartition(".")[2])
    return f"({', '.join(parts)})"


if __name__ == "__main__":
    import cupy

    if cupy.__version__ != VERSION:
        raise SystemExit(f"this CuPy is {cupy.__version__}; the stand-in goes by {VERSION}: install that one")
    TARGET.write_text(HEADER + "\n".join(names()) + "\n", encoding="utf-8")
    print(f"{TARGET}: {len(names())} names of CuPy {VERSION}")
