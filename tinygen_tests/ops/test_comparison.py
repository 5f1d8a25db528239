"""Comparisons and logic: PyTorch's values, nothing to differentiate, errors."""

import numpy as np
import pytest
from hypothesis import given

import tinygen as tg
from tinygen.op import registry
from tinygen.ops import comparison
from tinygen_tests.draws import examples, numbers, pairs, seeds
from tinygen_tests.judge import judge, same, torch

COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]
LOGIC = ["bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "logical_not"]
PREDICATES = ["isnan", "isfinite"]


@pytest.mark.parametrize("name", COMPARISONS)
@examples(15)
@given(shapes=pairs(), seed=seeds)
def test_comparisons_agree_with_pytorch_and_never_require_grad(name, shapes, seed):
    a, b = np.round(numbers(seed, shapes[0])), np.round(numbers(seed + 1, shapes[1]))
    judge(getattr(tg, name), lambda x, y: getattr(torch, name)(x, y), a, b)
    judge(getattr(tg, name), lambda x, y: getattr(torch, name)(x, y), a.astype("int64"), b)


@pytest.mark.parametrize("kind", ["bool", "int64"])
def test_logical_and_bitwise_operators_agree_with_pytorch(kind):
    """Proves: bitwise_and, bitwise_or, bitwise_xor, bitwise_not, logical_not."""
    a, b = (np.array([0, 0, 1, 1]) * 5).astype(kind), (np.array([0, 1, 0, 1]) * 3).astype(kind)
    for f in (
        lambda x, y: x & y,
        lambda x, y: x | y,
        lambda x, y: x ^ y,
        lambda x, y: ~x,
        lambda x, y: True & x,
        lambda x, y: True | x,
        lambda x, y: True ^ x,
        lambda x, y: x.logical_not(),
    ):
        judge(f, f, a, b)


def test_not_of_floating_numbers_is_refused():
    with pytest.raises(TypeError, match="bitwise_not"):
        ~tg.tensor([1.0])


@pytest.mark.parametrize("name", PREDICATES)
def test_predicates_agree_with_pytorch(name):
    x = np.array([0.0, -0.0, 1.0, -np.inf, np.inf, np.nan])
    same(getattr(tg, name)(tg.tensor(x)), getattr(torch, name)(torch.from_numpy(x)))


@pytest.mark.parametrize("name", [*COMPARISONS, "logical_not", *PREDICATES])
@pytest.mark.parametrize("wrong", [[1.0, 2.0], None, "x"], ids=str)
def test_what_is_no_tensor_is_refused(name, wrong):
    for arguments in ((tg.ones(2), wrong), (wrong, tg.ones(2))) if name in COMPARISONS else ((wrong,),):
        with pytest.raises(TypeError, match=rf"(?s){name}.*[Tt]ensor"):
            getattr(tg, name)(*arguments)


def test_every_op_of_the_file_is_tested_here():
    declared = {o.name for o in registry.values() if o.module == comparison.__name__}
    assert declared == {*COMPARISONS, *LOGIC, *PREDICATES}
