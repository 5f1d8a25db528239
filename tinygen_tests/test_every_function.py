"""Public functions made of several ops keep float32 and float16, in every layout, to the second order.

The single ops are walked by test_every_op.py; values and derivatives of these functions are judged by PyTorch, in the
tests of their files. The cases are in tinygen_tests/cases/functions.py.
"""

import pytest

import tinygen.nn.functional as F
from tinygen.testing import checks
from tinygen_tests.cases.functions import CASES, DECLARATIONS

CHECKS = [check for declaration in DECLARATIONS for check in checks(declaration)]

# Those without cases, and why.
ONE_OP = {"softmax", "log_softmax", "fold", "pixel_shuffle", "pixel_unshuffle"}  # behind checks of their arguments
RANDOM = {"dropout"}
NOT_DIFFERENTIABLE = {"one_hot"}


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_every_function(check):
    check()


@pytest.mark.parametrize("declaration", DECLARATIONS, ids=lambda declaration: declaration.name)
def test_every_case_can_be_drawn(declaration):
    assert declaration.problems() == [] and declaration.wanted


def test_every_function_of_the_functional_module_is_an_op_or_has_cases():
    known = ONE_OP | RANDOM | NOT_DIFFERENTIABLE | {f.__name__ for f in CASES}
    missing = [name for name in F.__all__ if not hasattr(getattr(F, name), "op") and name not in known]
    assert missing == [], "declare cases in tinygen_tests/cases/functions.py"
