"""A strict stand-in for CuPy, so that GPU code is tested where there is no GPU.

>>> with tg.testing.strict_cupy():
...     x = tg.ones(2, 3, device="cuda")          # lives on the stand-in
...     y = (x @ x.T).sum()                       # computed by "CuPy": any of NumPy's ways that CuPy lacks is an error
...     y.item()                                  # what asks for the contents is counted: tg.testing.count_syncs()
12.0

It behaves as CuPy 14.2 does where that hurts: host arrays and implicit conversion are refused, reductions give arrays
of no axes, results are in C order, integer arrays out of range wrap, a place assigned twice is poisoned, uninitialised
memory holds NaN, and only names, methods and parameters that CuPy really has exist (cupy_names.txt).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from tinygen import random as _random
from tinygen.backend import get_default_device, register_library, set_default_device, unregister_library
from tinygen.testing.strict.syncs import Syncs, count_syncs


@cache
def _library() -> Any:
    """The module that takes CuPy's place."""
    # Imported here, so that `import tinygen` does not pay for what few programs use.
    from tinygen.testing.strict.library import build

    return build()


@contextmanager
def strict_cupy(default: bool = False) -> Iterator[Any]:
    """Let the device ``"cuda"`` be the strict stand-in for a block of code, in all threads.

    Args:
        default: make ``"cuda"`` the default device too, so that tensors are made there where no device is named.

    Yields:
        The stand-in's module, as ``array_module`` gives it.

    Tensors of the block cannot be computed with after it. Blocks may be nested.
    """
    if _depth[0] == 0:
        register_library(_library().ndarray, _library(), "cuda")
    _depth[0] += 1
    # Generators hold streams of their device's library: those of the GPU are made anew in the block and after it.
    kept = {place: _random._defaults.pop(place) for place in list(_random._defaults) if place != "cpu"}
    before = get_default_device()
    try:
        if default:
            set_default_device("cuda")
        yield _library()
    finally:
        set_default_device(before)
        for place in [place for place in _random._defaults if place != "cpu"]:
            del _random._defaults[place]
        _random._defaults.update(kept)
        _depth[0] -= 1
        if _depth[0] == 0:
            unregister_library(_library().ndarray)


_depth = [0]
