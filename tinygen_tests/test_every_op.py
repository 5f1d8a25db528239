"""Every registered op × differentiable argument × dtype × layout × order, and what else was declared of it.

The cases are in tinygen_tests/cases, a file for each of tinygen/ops. ``pytest --backend strict`` (or cupy) walks the
same way where a GPU's arrays would be. An op without cases, or an argument without a rule, fails here by its name.
"""

import gc
import importlib
import pkgutil

import pytest

import tinygen.ops
from tinygen.op import registry
from tinygen.tensor import Node, Tensor
from tinygen.testing import Case, check_op, checks, declare, real
from tinygen_tests.cases import DECLARATIONS, FAMILIES
from tinygen_tests.judge import unseen

MODULES = [importlib.import_module(m.name) for m in pkgutil.walk_packages(tinygen.ops.__path__, "tinygen.ops.")]
OPS = {name: op for name, op in registry.items() if op.module.startswith("tinygen.")}
CHECKS = [check for declaration in DECLARATIONS for check in checks(declaration)]


def full_name(declaration):
    op = declaration.registered
    return f"{op.module}.{op.name}"


def identify(check):
    return f"{full_name(check.of).removeprefix('tinygen.ops.').rpartition('.')[0]}.{check}"


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_to_the_collector():
    """Results, graphs and gradients of every op die by themselves: the collector is off, and finds none at the end."""
    gc.collect()
    gc.freeze()
    gc.disable()
    before = gc.get_debug()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        lost = [thing for thing in gc.garbage if isinstance(thing, (Tensor, Node))]
    finally:
        gc.set_debug(before)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()
    assert lost == [], f"in cycles: {lost[:20]}"


@pytest.mark.parametrize("name", OPS)
def test_every_op_has_declared_cases(name):
    assert [full_name(d) for d in DECLARATIONS].count(name) == 1, f"declare cases of {name} in tinygen_tests/cases"


@pytest.mark.parametrize("declaration", DECLARATIONS, ids=full_name)
def test_every_argument_is_a_declared_constant_or_has_a_rule_and_floating_cases(declaration):
    assert declaration.problems() == []


@pytest.mark.parametrize("check", CHECKS, ids=identify)
def test_every_op(check):
    with unseen(by="tinygen/(ops|kernels|autograd.py)", moves=True):
        check()


def test_cases_are_declared_in_the_file_that_mirrors_the_ops():
    for family in FAMILIES:
        name = family.__name__.rpartition(".")[2]
        assert {d.registered.module for d in family.DECLARATIONS} == {f"tinygen.ops.{name}"}


def test_no_op_hides_behind_another_of_the_same_name():
    """The registry's key is the module and the name without leading underscores; two such ops would be one entry."""
    public = {id(f.op): f.op for module in MODULES for f in vars(module).values() if hasattr(f, "op")}
    hidden = [op for op in public.values() if registry.get(f"{op.module}.{op.name}") is not op]
    assert hidden == [] and len(public) >= len(OPS)


def test_an_op_that_is_added_without_cases_is_named():
    """What happens to the next op that somebody adds: the walk above is over the registry, not over a list."""
    import tinygen as tg

    @tg.op
    def brand_new(x):
        return x * 2

    name = f"{brand_new.op.module}.brand_new"
    try:
        assert registry[name] is brand_new.op
        assert name not in [full_name(d) for d in DECLARATIONS]
        assert declare(brand_new).problems() == [
            "brand_new has no cases; declare some with Case(...)",
            "brand_new has no vjp of its argument 'x'; write one, or declare constants='x'",
        ]
        brand_new.vjp("x")(lambda g: g * 2)
        check_op(brand_new, Case(real(2, 3)), linear="x", value=lambda x: 2 * x)
    finally:
        del registry[name]
