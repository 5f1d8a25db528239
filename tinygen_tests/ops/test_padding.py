"""Padding: PyTorch's values, gradients and limits in every mode, adjoints, layout, errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.ops import padding
from tinygen.ops.padding import pad
from tinygen.testing import check_adjoint, check_grad
from tinygen_tests.draws import numbers, seeds
from tinygen_tests.judge import host, judge, placed, same, torch

MODES = ["reflect", "replicate", "circular"]


@settings(max_examples=100)
@given(
    shape=st.lists(st.integers(0, 4), max_size=5).map(tuple),
    value=st.sampled_from([None, 0, 1.5, -2, float("inf")]),
    seed=seeds,
    data=st.data(),
)
def test_constant_agrees_with_pytorch(shape, value, seed, data):
    amounts = []
    for n in reversed(shape[data.draw(st.integers(0, len(shape))) :]):
        before = data.draw(st.integers(-n, 3))
        amounts += [before, data.draw(st.integers(-(n + min(before, 0)), 3))]
    judge(
        lambda x: pad(x, amounts, value=value),
        lambda x: torch.nn.functional.pad(x, amounts, value=value),
        numbers(seed, shape),
    )


@st.composite
def bordered(draw, mode):
    """A shape and amounts within the limits of a mode, negative ones among them."""
    axes = draw(st.integers(1, 3))
    lead = draw(st.sampled_from([(2,), (2, 3), (0, 2), (1,)]))
    shape, amounts = [], []
    for _ in range(axes):
        n = draw(st.integers(1, 5))
        cut = draw(st.sampled_from([(0, 0), (0, 0), (1, 0), (0, 1), (1, 1), (2, 1)]))
        if sum(cut) >= n:
            cut = (0, 0)
        most = {"reflect": n - 1, "circular": n - sum(cut), "replicate": 4}[mode]
        amounts.append([-c if c else draw(st.integers(0, most)) for c in cut])
        shape.append(n)
    return (*lead, *reversed(shape)), [a for both in amounts for a in both]


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=60)
@given(data=st.data(), seed=seeds)
def test_copying_modes_agree_with_pytorch(mode, data, seed):
    shape, amounts = data.draw(bordered(mode))
    x = numbers(seed, shape)
    if 0 in shape:  # PyTorch takes an empty batch for some numbers of axes and not for others
        y = pad(tg.Tensor(placed(x), requires_grad=True), amounts, mode)
        assert y.shape == pad(tg.Tensor(placed(x)), amounts).shape
        y.sum().backward()
        return
    judge(lambda x: pad(x, amounts, mode), lambda x: torch.nn.functional.pad(x, amounts, mode), x)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("constant", [0, 0, 1, 2, 3, 0, 0]),
        ("reflect", [3, 2, 1, 2, 3, 2, 1]),
        ("replicate", [1, 1, 1, 2, 3, 3, 3]),
        ("circular", [2, 3, 1, 2, 3, 1, 2]),
    ],
)
def test_modes_by_hand(mode, expected):
    x = tg.Tensor(placed(np.array([[1, 2, 3]])))
    y = pad(x, (2, 2), mode)
    assert y.dtype == "int64"
    np.testing.assert_array_equal(host(y), [expected])


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40)
@given(data=st.data(), seed=seeds)
def test_adjoints(mode, data, seed):
    shape, amounts = data.draw(bordered(mode))
    both = [tuple(max(a, 0) for a in amounts[i : i + 2]) for i in range(0, len(amounts), 2)]
    if mode == "circular":
        both = [tuple(min(a, n) for a in b) for b, n in zip(both, reversed(shape), strict=False)]
    pads = ((0, 0),) * (len(shape) - len(both)) + tuple(reversed(both))
    x = numbers(seed, shape)
    y = numbers(seed + 1, [n + b + a for n, (b, a) in zip(shape, pads, strict=True)])
    check_adjoint(lambda x: padding._extend(x, pads, mode), lambda y: padding._fold(y, pads, mode), x, y)


def test_padding_by_minus_as_much_is_the_adjoint_of_padding():
    x, y = numbers(0, (3, 4)), numbers(1, (4, 4))
    check_adjoint(lambda x: pad(x, (2, -2, 1, 0)), lambda y: pad(y, (-2, 2, -1, 0)), x, y)


def test_gradients_without_pytorch():
    x = numbers(0, (1, 3, 3))
    check_grad(lambda x: pad(x * x, (1, 2), value=3.0), x[:, :2], order=3)
    for mode in MODES:
        check_grad(lambda x: pad(x * x, (1, 1), mode), x[:, :1, :2], order=3)  # noqa: B023
        check_grad(lambda x: pad(x, (1, 2, 2, 1), mode) * pad(x, (2, 1, 1, 2), mode), x)  # noqa: B023


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32"])
def test_dtypes_stay(dtype):
    x = (numbers(0, (2, 3, 3)) * 50 % 7).astype(dtype)
    for mode in MODES + ["constant"]:
        y = pad(tg.Tensor(placed(x)), (1, 1), mode)
        assert y.dtype == dtype
        np.testing.assert_array_equal(host(y)[..., 1:-1], x)
    if dtype != "bool":
        theirs = torch.nn.functional.pad(torch.from_numpy(x), (1, 1), value=2.5)
        same(pad(tg.Tensor(placed(x)), (1, 1), value=2.5), theirs)


def test_value_zero_goes_with_every_mode():
    x = numbers(0, (2, 3))
    theirs = torch.nn.functional.pad(torch.from_numpy(x), (1, 1), "reflect", 0)
    same(pad(tg.Tensor(placed(x)), (1, 1), "reflect", 0), theirs)


@pytest.mark.cpu_only("the order of axes in memory")
@pytest.mark.parametrize("mode", MODES + ["constant"])
def test_channels_last_stays(mode):
    x = tg.Tensor(numbers(0, (2, 5, 6, 3)).transpose(0, 3, 1, 2), requires_grad=True)
    y = pad(x, (1, 2, 2, 1), mode)
    assert y.data.transpose(0, 2, 3, 1).flags.c_contiguous
    g = numbers(1, (2, 8, 9, 3)).transpose(0, 3, 1, 2)
    (d,) = tg.grad(y, [x], tg.Tensor(g))
    assert d.data.transpose(0, 2, 3, 1).flags.c_contiguous
    assert pad(tg.Tensor(numbers(0, (2, 3, 5, 6))), (1, 1, 1, 1), mode).data.flags.c_contiguous


@pytest.mark.cpu_only("NumPy memory")
@pytest.mark.parametrize("mode", MODES + ["constant"])
def test_the_result_is_never_the_inputs_memory(mode):
    x = tg.Tensor(numbers(0, (2, 3, 4)))
    for amounts in [(0, 0), (-1, 0), ()] if mode == "constant" else [(0, 0), (-1, 0)]:
        assert not np.may_share_memory(pad(x, amounts, mode).data, x.data)


@pytest.mark.parametrize(
    ("shape", "amounts", "mode", "value", "error", "says"),
    [
        ((3,), (1,), "constant", None, ValueError, r"\(before, after\) for the last axes, at most 1 .* got \(1,\)"),
        ((3,), (1, 1, 1, 1), "constant", None, ValueError, "at most 1 of them"),
        ((3,), (1.0, 1), "constant", None, TypeError, "a sequence of integers, got"),
        ((3,), 1, "constant", None, TypeError, "a sequence of integers, got 1"),
        ((3,), (-2, -2), "constant", None, ValueError, r"pad=\(-2, -2\) cuts off more than there is .* shape \(3,\)"),
        ((2, 3), (1, 1), "mirror", None, NotImplementedError, "mode='mirror' is not supported; the modes are"),
        ((2, 3), (1, 1), "reflect", 1.0, ValueError, r"value=1.0 is for mode='constant' alone"),
        ((3,), (1, 1), "reflect", None, NotImplementedError, r"'reflect' pads the last axis of 2 or 3, .* \(3,\)"),
        ((2, 3), (), "circular", None, NotImplementedError, r"got pad=\(\)"),
        ((2, 2, 2, 2), (1, 1), "replicate", None, NotImplementedError, "pads the last axis of 2 or 3"),
        ((2, 3), (3, 0), "reflect", None, ValueError, r"axis 1 of .* by at most 2 on either side, got \(3, 0\)"),
        ((2, 3), (0, 4), "circular", None, ValueError, "at most 3 on either side"),
        ((2, 3), (-2, 2), "circular", None, ValueError, "at most 1 on either side"),
        ((2, 0), (1, 1), "replicate", None, ValueError, "at most 0 on either side"),
        ((2, 0), (1, 1), "reflect", None, ValueError, "at most 0 on either side"),
        ((2, 3), (-4, 0), "replicate", None, ValueError, r"\(-4, 0\) cuts off more than there is of axis 1"),
        ((2, 3), (-4, 2), "circular", None, ValueError, r"\(-4, 2\) cuts off more than there is of axis 1"),
    ],
)  # fmt: skip
def test_errors(shape, amounts, mode, value, error, says):
    with pytest.raises(error, match="pad: .*" + says):
        pad(tg.Tensor(placed(np.zeros(shape))), amounts, mode, value)


def test_the_input_is_a_tensor():
    with pytest.raises(TypeError, match="pad: expected a Tensor, got ndarray"):
        pad(np.zeros(3), (1, 1))
