"""Result dtypes: PyTorch's rules, for every pair of dtypes, ranks and Python numbers."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

import tinygen as tg
from tinygen.promotion import floating, promote, result_type
from tinygen_tests.judge import torch

DTYPES = ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"]
ARRAYS = [np.ones(shape, dtype=d) for d in DTYPES for shape in ((), (2,))]
NUMBERS = [True, 2, 2.5]


def name(value):
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)


def theirs(value):
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


PAIRS = [
    (a, b)
    for a, b in itertools.product([*ARRAYS, *NUMBERS], repeat=2)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray)
]


@pytest.mark.parametrize("default", ["float32", "float64", "float16"])
def test_result_type_is_pytorchs_for_every_pair(default):
    tg.set_default_dtype(default)
    torch.set_default_dtype(getattr(torch, default))
    try:
        for a, b in PAIRS:
            expected = str(torch.result_type(theirs(a), theirs(b))).removeprefix("torch.")
            assert str(result_type(a, b)) == expected, f"{name(a)}, {name(b)}"
    finally:
        tg.set_default_dtype("float32")
        torch.set_default_dtype(torch.float32)


OPS = {
    "add": lambda m, a, b: a + b,
    "mul": lambda m, a, b: a * b,
    "div": lambda m, a, b: a / b,
    "eq": lambda m, a, b: a == b,
    "lt": lambda m, a, b: a < b,
    "where": lambda m, a, b: m.where(m.tensor([True, False]), a, b),
}


@pytest.mark.parametrize("op", OPS)
def test_operations_have_pytorchs_result_dtype_and_value_for_every_pair(op):
    for a, b in PAIRS:
        ours = OPS[op](tg, *(tg.tensor(v) if isinstance(v, np.ndarray) else v for v in (a, b)))
        other = OPS[op](torch, theirs(a), theirs(b))
        assert str(ours.dtype) == str(other.dtype).removeprefix("torch."), f"{op}({name(a)}, {name(b)})"
        np.testing.assert_allclose(ours.numpy(), other.numpy(), rtol=1e-3)


@pytest.mark.parametrize("op", ["maximum", "minimum", "pow"])
def test_functions_of_two_tensors_have_pytorchs_result_dtype(op):
    for a, b in itertools.product(ARRAYS, repeat=2):
        if op == "pow" and a.dtype == b.dtype == np.bool_:
            continue  # PyTorch has none
        ours = getattr(tg, op)(tg.tensor(a), tg.tensor(b))
        other = getattr(torch, op)(torch.from_numpy(a), torch.from_numpy(b))
        assert str(ours.dtype) == str(other.dtype).removeprefix("torch."), f"{op}({name(a)}, {name(b)})"


def test_result_type_of_several_is_pytorchs_of_all():
    a, b, c = np.ones(2, "int32"), np.ones((), "float64"), np.ones(2, "uint8")
    assert result_type(a, c) == np.int32
    assert result_type(a, c, 2) == np.int32
    assert result_type(a, b, c, 2.5) == np.float64
    assert result_type(np.ones(2, "float32"), b, c) == np.float32
    assert result_type(True, 2) == np.int64 and result_type(2, 2.5) == np.float32


def test_numpy_scalars_count_as_python_numbers():
    # NumPy hands them out where it means a number; they must not turn float32 into float64.
    x = tg.ones(2)
    for number in (np.float64(2.5), np.int64(2), np.bool_(True), np.float32(2.5)):
        assert (x * number).dtype == tg.float32 and (number * x).dtype == tg.float32
        assert result_type(x.data, number) == np.float32
    assert (tg.tensor([1, 2]) * np.float64(0.5)).dtype == tg.float32
    assert (tg.tensor([1, 2]) * np.int32(3)).dtype == tg.int64


def test_promote_leaves_arrays_of_one_dtype_as_they_are():
    a, b = np.ones(2), np.ones(3)
    raw = ["first", a, b]
    promote(raw)
    assert raw[0] == "first" and raw[1] is a and raw[2] is b
    raw = [a, 2]
    promote(raw)
    assert raw[0] is a and raw[1] == 2 and type(raw[1]) is int


@pytest.mark.parametrize("wrong", [[1.0], None, "x", Fraction(1, 2), object()])
def test_what_is_no_number_is_named(wrong):
    with pytest.raises(TypeError, match="expected a Tensor or a number, got"):
        result_type(np.ones(2), wrong)


def test_floating_turns_integers_into_the_default_dtype():
    assert floating(np.ones(2, "int64")).dtype == np.float32
    assert floating(np.ones(2, "bool")).dtype == np.float32
    x = np.ones(2, "float16")
    assert floating(x) is x and floating(3) == 3
