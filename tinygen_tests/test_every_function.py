"""Public functions made of several ops keep float32 and float16, in every layout, to the second order.

The single ops are walked by test_every_op.py; values and derivatives of these functions are judged by PyTorch, in the
tests of their files. The cases are in tinygen_tests/cases/functions.py.
"""

import inspect

import pytest

import tinygen as tg
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


# -------------------------------------------------------------------------- a list where a Tensor belongs

# What Python numbers and lists may be given to, and what does not take a tensor first.
TAKES_NUMBERS = {
    "tensor", "full_like", "promote_types", "result_type", "is_tensor", "save", "broadcast_shapes", "as_tensor",
    "where",  # whose first argument is a condition, as its message says
}


def takers():
    """The functions of tg and F whose first argument is annotated as a Tensor, or that are ops."""
    public = {name: f for name, f in vars(tg).items() if not name.startswith("_")}
    spaces = {"tg": public, "F": {name: getattr(F, name) for name in F.__all__}}
    for space, functions in spaces.items():
        for name, function in sorted(functions.items()):
            if not inspect.isfunction(function) or name in TAKES_NUMBERS:
                continue
            parameters = list(inspect.signature(function).parameters.values())
            if parameters and (hasattr(function, "op") or str(parameters[0].annotation) in ("Tensor", "Tensor | None")):
                yield pytest.param(function, parameters, id=f"{space}.{name}")


@pytest.mark.parametrize("function, parameters", takers())
def test_a_list_in_place_of_a_tensor_is_named_and_put_right(function, parameters):
    others = [
        tg.ones(2) if "Tensor" in str(p.annotation) or hasattr(function, "op") else 1
        for p in parameters[1:]
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    with pytest.raises(TypeError, match=r"expected .*Tensor.*tg\.tensor\(\.\.\.\)"):
        function([1.0, 2.0], *others)


def test_what_came_is_said():
    with pytest.raises(TypeError, match=r"softmax: expected input to be a Tensor, got list \[1.0, 2.0\]; make one"):
        F.softmax([1.0, 2.0], 0)
    with pytest.raises(TypeError, match="mse_loss: expected target to be a Tensor, got float 0.5"):
        F.mse_loss(tg.ones(2), 0.5)
    with pytest.raises(TypeError, match="stack: expected tensors to hold Tensors, got int 3"):
        tg.stack([tg.ones(2), 3])


def test_an_error_about_something_else_stays_as_it_is():
    with pytest.raises(IndexError, match="dim"):
        F.softmax(tg.ones(2), 5)
    with pytest.raises(TypeError, match="unexpected keyword"):
        F.softmax([1.0], dimension=0)
