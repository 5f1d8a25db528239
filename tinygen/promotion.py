"""Which dtype two operands meet in: PyTorch's rules.

Numbers fall into categories, bool < integer < floating < complex. Within one category a tensor with axes
decides over a 0-d tensor, and a 0-d tensor over a Python number; a higher category always wins, and a Python
float that meets integers gives the default dtype. (NumPy's own rules differ: int64 with float32 gives float64
there, float32 in PyTorch.)

Source: ``torch.result_type``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.backend import get_default_dtype, is_array

_CATEGORY = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
_PYTHON = {bool: 0, int: 1, float: 2, complex: 3}


def promote(raw: list) -> None:
    """Bring the last two of ``raw`` to a common dtype, in place.

    Raises:
        TypeError: one of them is neither an array nor a Python number.
    """
    a, b = raw[-2:]
    try:
        kind_a, kind_b = a.dtype, b.dtype
        if kind_a is kind_b or kind_a == kind_b:
            return
    except AttributeError:
        # A Python number bends to the array's dtype by itself, unless it is of a higher category.
        if type(b) in _PYTHON and is_array(a):
            if _CATEGORY[a.dtype.kind] >= _PYTHON[type(b)]:
                return
        elif type(a) in _PYTHON and is_array(b) and _CATEGORY[b.dtype.kind] >= _PYTHON[type(a)]:
            return
    dtype = result_type(a, b)
    for position in (-2, -1):
        value = raw[position]
        if is_array(value):
            if value.dtype != dtype:
                raw[position] = value.astype(dtype)
        elif isinstance(value, np.generic):
            raw[position] = value.item()


def result_type(*values: Any) -> np.dtype:
    """The dtype in which arrays and Python numbers meet (``torch.result_type``, for any number of them).

    Raises:
        TypeError: a value is neither an array nor a number.
    """
    best: dict[int, tuple[int, np.dtype | None]] = {}  # rank (number, 0-d, with axes) → category, dtype
    for value in values:
        if isinstance(value, np.generic):
            value = value.item()
        if type(value) in _PYTHON:
            rank, category, dtype = 0, _PYTHON[type(value)], None
        elif is_array(value):
            rank, category, dtype = 1 + (value.ndim > 0), _CATEGORY[value.dtype.kind], value.dtype
        else:
            kind = type(value).__name__
            raise TypeError(f"expected a Tensor or a number, got {kind}: {value!r}; make one with tg.tensor(...)")
        known = best.get(rank)
        if known is None or category > known[0]:
            best[rank] = (category, dtype)
        elif category == known[0] and dtype is not None:
            best[rank] = (category, np.promote_types(known[1], dtype))  # type: ignore[arg-type]
    category, dtype = -1, None
    for rank in (2, 1, 0):
        if rank in best and best[rank][0] > category:
            category, dtype = best[rank]
            if dtype is None:
                default = get_default_dtype()
                dtype = (np.dtype(bool), np.dtype("int64"), default, np.result_type(default, 1j))[category]
    assert dtype is not None
    return dtype


def floating(value: Any) -> Any:
    """``value`` with integers and booleans turned into the default dtype: what exp, sqrt, … compute with.

    Python numbers are left as they are.
    """
    if type(value) in _PYTHON or value.dtype.kind in "fc":
        return value
    return value.astype(get_default_dtype())
