"""docs/conventions.md keeps its promises: every row of its tables is evaluated, here and in PyTorch."""

import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinygen as tg
import tinygen.nn.functional as F
from tinygen_tests.judge import torch

PAGE = (Path(__file__).parents[1] / "docs" / "conventions.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| What |")
]
ERRORS = (ValueError, IndexError, RuntimeError)


def code(cell):
    (found,) = re.findall(r"`([^`]+)`", cell)
    return found


def evaluated(source, library, functional):
    """The value as nested lists of Python numbers, or ``error``."""

    def t(numbers):
        return library.tensor(numbers, dtype=library.float64)

    def slope(f, *inputs):
        xs = [t(x).requires_grad_() for x in inputs]
        f(*xs).sum().backward()
        grads = [x.grad.tolist() for x in xs]
        return grads[0] if len(grads) == 1 else grads

    def plain(value):
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return value.tolist() if hasattr(value, "tolist") else value

    names = {"tg": library, "F": functional, "t": t, "slope": slope, "math": math}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return plain(eval(source, names))
        except ERRORS as error:
            assert "zero" in str(error) or "empty" in str(error) or "numel" in str(error), error
            return "error"


def expected(cell):
    return "error" if cell == "error" else eval(code(cell), {"math": math})


def equal(a, b):
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-7) or (math.isnan(a) and math.isnan(b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_tinygen_does_what_the_table_says(row):
    _, source, value, _ = row
    found = evaluated(code(source), tg, F)
    assert equal(found, expected(value)), found


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_pytorch_does_what_the_table_says_and_each_difference_has_a_reason(row):
    _, source, value, theirs = row
    found = evaluated(code(source), torch, torch.nn.functional)
    if theirs == "the same":
        assert equal(found, expected(value)), found
        return
    stated, _, reason = theirs.partition(": ")
    assert equal(found, expected(stated)) and not equal(found, expected(value)), found
    assert len(reason.split()) > 5


def test_the_tables_cover_what_they_should():
    text = " ".join(row[0] + row[1] for row in ROWS)
    for name in "relu abs clamp maximum minimum amax max_pool2d argmax norm pow sqrt prod logsumexp mean sum".split():
        assert name in text, name
    assert len(ROWS) >= 70 and all(len(row) == 4 for row in ROWS)
    assert len({row[0] + row[1] for row in ROWS}) == len(ROWS)
    differences = [row for row in ROWS if row[3] != "the same"]
    assert len(differences) <= 3, "PyTorch's choice, unless a reason is given"
