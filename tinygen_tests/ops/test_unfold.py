"""unfold and fold: PyTorch's numbers, each other's adjoint, errors."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.ops.unfold import fold, pair, sliding, unfold
from tinygen.testing import check_adjoint
from tinygen_tests.draws import numbers, seeds
from tinygen_tests.judge import host, judge, placed, torch

F = torch.nn.functional


def pairs(low, high):
    number = st.integers(low, high)
    return st.one_of(number, st.tuples(number, number))


@st.composite
def setups(draw):
    """A shape, and kernel_size, dilation, padding and stride of windows that fit."""
    size = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    arguments = draw(pairs(1, 4)), draw(pairs(1, 3)), draw(pairs(0, 2)), draw(pairs(1, 3))
    kernel, dilation, padding, _ = (a if isinstance(a, tuple) else (a, a) for a in arguments)
    for n, k, d, p in zip(size, kernel, dilation, padding, strict=True):
        assume(n + 2 * p >= d * (k - 1) + 1)
    batch = draw(st.sampled_from([(1,), (2,), ()]))
    return (*batch, draw(st.integers(1, 3)), *size), arguments


@settings(max_examples=100)
@given(setup=setups(), seed=seeds)
def test_unfold_and_fold_agree_with_pytorch(setup, seed):
    shape, arguments = setup
    x = numbers(seed, shape)
    judge(lambda x: unfold(x, *arguments), lambda x: F.unfold(x, *arguments), x)
    columns = numbers(seed + 1, F.unfold(torch.from_numpy(x), *arguments).shape)
    judge(lambda y: fold(y, shape[-2:], *arguments), lambda y: F.fold(y, shape[-2:], *arguments), columns)


@settings(max_examples=50)
@given(setup=setups(), seed=seeds)
def test_they_are_adjoint(setup, seed):
    shape, arguments = setup
    x = numbers(seed, shape)
    y = numbers(seed + 1, unfold(tg.Tensor(placed(x)), *arguments).shape)
    check_adjoint(lambda x: unfold(x, *arguments), lambda y: fold(y, shape[-2:], *arguments), x, y)


def test_what_windows_see():
    x = tg.Tensor(placed(np.arange(1.0, 10).reshape(1, 1, 3, 3)))
    np.testing.assert_array_equal(host(unfold(x, 2))[0], [[1, 2, 4, 5], [2, 3, 5, 6], [4, 5, 7, 8], [5, 6, 8, 9]])
    seen = fold(unfold(tg.Tensor(placed(np.ones((1, 1, 3, 3)))), 2), 3, 2)
    np.testing.assert_array_equal(host(seen)[0, 0], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])


def test_an_empty_batch_and_integers():
    assert unfold(tg.Tensor(placed(np.zeros((0, 2, 4, 4)))), 3).shape == (0, 18, 4)
    assert fold(tg.Tensor(placed(np.zeros((0, 18, 4)))), 4, 3).shape == (0, 2, 4, 4)
    x = tg.Tensor(placed(np.arange(16).reshape(1, 1, 4, 4)))
    assert unfold(x, 2, stride=2).dtype == "int64"
    np.testing.assert_array_equal(host(fold(unfold(x, 2, stride=2), 4, 2, stride=2)), host(x))


@pytest.mark.cpu_only("about NumPy's memory")
def test_results_share_no_memory():
    x = numbers(0, (1, 3, 4, 4))
    x.flags.writeable = False
    assert not np.shares_memory(unfold(tg.Tensor(x), 1).data, x)
    y = np.zeros((1, 3, 16))
    assert not np.shares_memory(fold(tg.Tensor(y), 4, 1).data, y)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda x: unfold(x[0, 0], 2), ValueError, r"unfold: expected input \(N, C, H, W\) or .*, got shape \(4, 5\)"),
        (lambda x: unfold(x, 5), ValueError, r"unfold: the filter spans 5×5 .* more than the padded input's 4×5"),
        (lambda x: unfold(x, 0), ValueError, "unfold: kernel_size must be at least 1, got 0"),
        (lambda x: unfold(x, 2, padding="same"), TypeError, "unfold: padding must be an integer or a pair of them"),
        (lambda x: unfold(x, (1, 2, 3)), TypeError, r"unfold: kernel_size must be an integer or a pair .*\(1, 2, 3\)"),
        (lambda x: fold(x, 4, 2), ValueError, r"fold: expected input \(N, C·kh·kw, L\) or .* \(1, 3, 4, 5\)"),
        (lambda x: fold(x[0, :, :4], 4, 2), ValueError, r"output_size=\(4, 4\) has 3·3 = 9 .*last axis .* \(3, 4, 5\)"),
        (lambda x: fold(x[0, :, :3], 4, 2), ValueError, r"fold: axis 1 of the input, 3, must be a multiple of the 2·2"),
        (lambda x: fold(x[0], 3, 2, padding=-1), ValueError, "fold: padding must be at least 0"),
        (lambda x: fold(x[0], 3.0, 2), TypeError, "fold: output_size must be an integer or a pair of them, got 3.0"),
    ],
)  # fmt: skip
def test_errors(call, error, says):
    with pytest.raises(error, match=says):
        call(tg.Tensor(placed(np.zeros((1, 3, 4, 5)))))


def test_pairs_and_windows():
    assert pair(3, "f", "stride") == (3, 3) and pair([1, 2], "f", "stride") == (1, 2)
    assert pair(np.int64(3), "f", "stride") == (3, 3)
    window = sliding((5, 6), (2, 3), 2, 1, 1, "f")
    assert window.out == (3, 3) and window.reach == (6, 7) and sliding((5, 6), (2, 3), 2, 1, 1, "f") is window
    assert sliding((5, 6), (2, 3), 1, "same", 1, "f").padding == (0, 1)
