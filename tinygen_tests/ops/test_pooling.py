"""Pooling: PyTorch's values, gradients and indices over every argument, ties, NaN, adjoints, errors."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.ops import pooling
from tinygen.ops.axis_windows import pool_windows, spread_windows, sum_windows
from tinygen.ops.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d, max_unpool2d
from tinygen.testing import check_adjoint, check_grad
from tinygen_tests.draws import apart, numbers, seeds
from tinygen_tests.judge import host, judge, placed, same, torch

inf, nan = float("inf"), float("nan")


@st.composite
def axis(draw, dilated=True):
    """(length, kernel, stride, padding, dilation) of one axis, such that a window fits."""
    K = draw(st.integers(1, 5))
    s, d = draw(st.integers(1, 4)), draw(st.integers(1, 3 if dilated else 1))
    p = draw(st.integers(0, K // 2))
    least = max(d * (K - 1) + 1 - 2 * p, d if p else 1)
    return draw(st.integers(least, least + 5)), K, s, p, d


@st.composite
def pools(draw, dilated=True):
    """A shape and the arguments of a pooling, each as a number for both axes or as a pair."""
    if draw(st.booleans()):
        rows, columns = draw(axis(dilated=dilated)), draw(axis(dilated=dilated))
        arguments = list(zip(rows, columns, strict=True))
    else:
        rows = draw(axis(dilated=dilated))
        columns = (rows[0] + draw(st.integers(0, 3)), *rows[1:])
        arguments = [None, *rows[1:]]
    lead = draw(st.sampled_from([(2, 2), (1, 3), (2,), (0, 2)]))
    if draw(st.booleans()):
        arguments[2] = None  # the stride is the kernel
    return (*lead, rows[0], columns[0]), dict(
        zip(("kernel_size", "stride", "padding", "dilation"), arguments[1:], strict=True)
    )


def drawn(seed, shape, tied):
    return np.round(numbers(seed, shape)) if tied else numbers(seed, shape)


# -------------------------------------------------------------------------------------------- maximum


@settings(max_examples=100)
@given(pool=pools(), ceil=st.booleans(), tied=st.booleans(), seed=seeds)
def test_max_pool2d_agrees_with_pytorch(pool, ceil, tied, seed):
    shape, arguments = pool
    x = drawn(seed, shape, tied)
    judge(
        lambda x: max_pool2d(x, **arguments, ceil_mode=ceil),
        lambda x: torch.nn.functional.max_pool2d(x, **arguments, ceil_mode=ceil),
        x,
    )


@settings(max_examples=100)
@given(pool=pools(), ceil=st.booleans(), tied=st.booleans(), seed=seeds)
def test_indices_are_pytorchs_and_the_values_with_them_differentiable(pool, ceil, tied, seed):
    shape, arguments = pool
    x = drawn(seed, shape, tied)
    everything = arguments | {"ceil_mode": ceil, "return_indices": True}
    places = max_pool2d(tg.Tensor(placed(x)), **everything)[1]
    same(places, torch.nn.functional.max_pool2d(torch.from_numpy(x), **everything)[1])
    assert not places.requires_grad
    judge(
        lambda x: max_pool2d(x, **everything)[0],
        lambda x: torch.nn.functional.max_pool2d(x, **everything)[0],
        x,
    )


@settings(max_examples=60)
@given(pool=pools(), ceil=st.booleans(), tied=st.booleans(), seed=seeds)
def test_max_pool2d_is_its_definition(pool, ceil, tied, seed):
    shape, arguments = pool
    x = drawn(seed, shape, tied)
    stride = arguments.pop("stride")
    windows = pool_windows("", shape[-2:], arguments.pop("kernel_size"), stride, **arguments, ceil=ceil)
    values, places = pooling.max_pool2d_by_definition(x, windows)
    y, choices = pooling._max_pool.op.forward(x, windows, True)
    np.testing.assert_array_equal(y, values)
    np.testing.assert_array_equal(pooling._max_pool.op.forward(x, windows, False)[0], values)
    np.testing.assert_array_equal(pooling._flat_places(x, choices, windows), places)


def test_arguments_stand_in_pytorchs_order():
    x = numbers(0, (1, 2, 9, 9))
    judge(
        lambda x: max_pool2d(x, 3, 2, 1, 2, True, True)[0],
        lambda x: torch.nn.functional.max_pool2d(x, 3, 2, 1, 2, True, True)[0],
        x,
    )
    judge(
        lambda x: avg_pool2d(x, 3, 2, 1, True, False, 5),
        lambda x: torch.nn.functional.avg_pool2d(x, 3, 2, 1, True, False, 5),
        x,
    )
    judge(lambda x: max_pool2d(x, 3, ()), lambda x: torch.nn.functional.max_pool2d(x, 3, ()), x)


def gradient_of_sum(f, x):
    x = tg.Tensor(placed(np.asarray(x, dtype="float64")), requires_grad=True)
    return host(tg.grad(f(x).sum(), [x])[0])


def test_the_first_maximum_wins_rows_before_columns():
    x = [[[2.0, 7.0, 7.0], [7.0, 7.0, 1.0]]]
    np.testing.assert_array_equal(gradient_of_sum(lambda x: max_pool2d(x, (2, 3)), x), [[[0, 1, 0], [0, 0, 0]]])
    np.testing.assert_array_equal(
        gradient_of_sum(lambda x: max_pool2d(x, (2, 3)), [[[1.0, 2.0, 7.0], [7.0, 7.0, 7.0]]]), [[[0, 0, 1], [0, 0, 0]]]
    )


@pytest.mark.parametrize("value", [0.0, -3.0, inf, -inf])
def test_windows_of_equal_numbers(value):
    x = np.full((1, 1, 4, 4), value)
    y, places = max_pool2d(tg.Tensor(placed(x)), 3, 2, 1, return_indices=True)
    np.testing.assert_array_equal(host(y), np.full((1, 1, 2, 2), value))
    # Where the window starts in the padding, the first place inside: never the padding.
    np.testing.assert_array_equal(host(places), [[[[0, 1], [4, 5]]]])
    expected = np.zeros((1, 1, 4, 4))
    expected[0, 0, :2, :2] = 1
    np.testing.assert_array_equal(gradient_of_sum(lambda x: max_pool2d(x, 3, 2, 1), x), expected)


def test_the_padding_is_never_chosen():
    x = np.full((1, 3, 3), -5.0)
    np.testing.assert_array_equal(host(max_pool2d(tg.Tensor(placed(x)), 2, 1, 1)), np.full((1, 4, 4), -5.0))


@settings(max_examples=60)
@given(pool=pools(), seed=seeds)
def test_nan_and_infinities_as_in_pytorch(pool, seed):
    shape, arguments = pool
    rng = np.random.default_rng(seed)
    x = rng.choice([nan, inf, -inf, 0.0, 1.0, 2.0], shape, p=[0.2, 0.1, 0.1, 0.2, 0.2, 0.2])
    ours = max_pool2d(tg.Tensor(placed(x)), **arguments, return_indices=True)
    theirs = torch.nn.functional.max_pool2d(torch.from_numpy(x), **arguments, return_indices=True)
    same(ours[0], theirs[0])
    same(ours[1], theirs[1])
    same(max_pool2d(tg.Tensor(placed(x)), **arguments), theirs[0])
    judge(
        lambda x: max_pool2d(x, **arguments), lambda x: torch.nn.functional.max_pool2d(x, **arguments), x, manners=False
    )


def test_infinite_gradients_stay_where_they_belong():
    x = tg.Tensor(placed(np.array([[[1.0, 2.0], [3.0, 4.0]]])), requires_grad=True)
    (g,) = tg.grad(max_pool2d(x, 2), [x], tg.Tensor(placed(np.full((1, 1, 1), inf))))
    np.testing.assert_array_equal(host(g), [[[0, 0], [0, inf]]])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_integers(dtype):
    low = np.iinfo(dtype).min
    x = np.array([[[low, low, 3], [low, low, 9]]], dtype=dtype)
    y, places = max_pool2d(tg.Tensor(placed(x)), 2, 1, 1, return_indices=True)
    b = torch.nn.functional.max_pool2d(torch.from_numpy(x), 2, 1, 1, return_indices=True)
    same(y, b[0])
    same(places, b[1])
    same(max_pool2d(tg.Tensor(placed(x)), 2, 1, 1), b[0])


def test_kernels_of_more_than_256_taps_along_an_axis():
    x = np.sort(numbers(0, (1, 1, 600)))
    judge(
        lambda x: max_pool2d(x, (1, 299), (1, 300)), lambda x: torch.nn.functional.max_pool2d(x, (1, 299), (1, 300)), x
    )


def test_without_a_derivative_nothing_is_chosen(monkeypatch):
    x = tg.Tensor(placed(numbers(0, (1, 2, 4, 4))), requires_grad=True)
    monkeypatch.setattr(pooling, "_choose", None)
    with tg.no_grad():
        max_pool2d(x, 2)
    max_pool2d(x.detach(), 2)
    with pytest.raises(TypeError):
        max_pool2d(x, 2)


def test_gradients_of_the_maximum_without_pytorch():
    check_grad(lambda x: max_pool2d(x, 2), apart(0, (1, 2, 4, 3)))
    check_grad(lambda x: max_pool2d(x, 3, 1, 1), apart(1, (1, 2, 3)), order=3)
    check_grad(lambda x: max_pool2d(x, 2, 1, 1, 2, True), apart(2, (1, 4, 4)))
    check_grad(lambda x: max_pool2d(x * x, 2, 1), apart(3, (1, 3, 3)))


# ----------------------------------------------------------------------------------------------- mean


@settings(max_examples=60)
@given(pool=pools(dilated=False), ceil=st.booleans(), divisor=st.sampled_from([1, 7, -3]), seed=seeds)
def test_avg_pool2d_agrees_with_pytorch(pool, ceil, divisor, seed):
    shape, arguments = pool
    del arguments["dilation"]
    for last in (
        {"count_include_pad": True},
        {"count_include_pad": False},
        {"count_include_pad": False, "divisor_override": divisor},
    ):
        everything = arguments | last | {"ceil_mode": ceil}
        judge(
            lambda x: avg_pool2d(x, **everything),  # noqa: B023
            lambda x: torch.nn.functional.avg_pool2d(x, **everything),  # noqa: B023
            numbers(seed, shape),
        )


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("ceil", [True, False])
def test_what_counts_in_a_mean_at_the_edges(ceil, include):
    for n, K, s in itertools.product(range(1, 7), range(1, 5), range(1, 5)):
        for p in range(K // 2 + 1):
            if n + 2 * p >= K:
                x = numbers(n, (2, n, n + 1))
                ours = avg_pool2d(tg.Tensor(placed(x)), K, s, p, ceil, include)
                same(ours, torch.nn.functional.avg_pool2d(torch.from_numpy(x), K, s, p, ceil, include))


def test_the_divisor_is_not_zero_but_may_be_negative():
    x = numbers(0, (1, 4, 4))
    np.testing.assert_allclose(
        host(avg_pool2d(tg.Tensor(placed(x)), 2, divisor_override=-2)),
        -2 * host(avg_pool2d(tg.Tensor(placed(x)), 2)),
    )


@settings(max_examples=30)
@given(pool=pools(dilated=False), seed=seeds)
def test_avg_pool2d_is_its_definition(pool, seed):
    shape, arguments = pool
    x = numbers(seed, shape)
    del arguments["dilation"]
    windows = pool_windows("", shape[-2:], *arguments.values(), 1, False)
    y = avg_pool2d(tg.Tensor(x), **arguments)
    np.testing.assert_allclose(y.data, pooling.avg_pool2d_by_definition(x, windows), rtol=1e-12, atol=1e-12)


@settings(max_examples=80)
@given(
    lead=st.sampled_from([(2, 2), (3,), (0, 2)]),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    output=st.one_of(
        st.integers(1, 8), st.tuples(st.none() | st.integers(1, 8), st.none() | st.integers(1, 8)).map(list), st.none()
    ),
    seed=seeds,
)
def test_adaptive_avg_pool2d_agrees_with_pytorch(lead, size, output, seed):
    theirs = torch.nn.functional.adaptive_avg_pool2d if output is not None else lambda x, _: x * 1
    judge(lambda x: adaptive_avg_pool2d(x, output), lambda x: theirs(x, output), numbers(seed, (*lead, *size)))


def test_adaptive_avg_pool2d_to_nothing():
    x = tg.Tensor(placed(numbers(0, (2, 3, 4, 5))), requires_grad=True)
    y = adaptive_avg_pool2d(x, (0, 2))
    assert y.shape == (2, 3, 0, 2)
    np.testing.assert_array_equal(host(tg.grad(y.sum(), [x])[0]), np.zeros((2, 3, 4, 5)))


def test_gradients_of_means_without_pytorch():
    x = numbers(0, (2, 4, 3))
    check_grad(lambda x: avg_pool2d(x, 2), x)
    check_grad(lambda x: avg_pool2d(x, 3, 2, 1, True, False), x[:1], order=3)
    check_grad(lambda x: adaptive_avg_pool2d(x, (3, 2)), x)
    check_grad(lambda x: avg_pool2d(x, 2) * max_pool2d(x, 2), apart(0, (1, 4, 4)))


@settings(max_examples=60)
@given(pool=pools(), ceil=st.booleans(), seed=seeds)
def test_adjoints(pool, ceil, seed):
    shape, arguments = pool
    x = numbers(seed, shape)
    stride = arguments.pop("stride")
    windows = pool_windows("", shape[-2:], arguments.pop("kernel_size"), stride, **arguments, ceil=ceil)
    y, choices = pooling._max_pool.op.forward(placed(x), windows, True)
    g = numbers(seed + 1, y.shape)
    check_adjoint(lambda x: pooling._pick(x, choices, windows), lambda g: pooling._unpool(g, choices, windows), x, g)
    check_adjoint(lambda x: sum_windows(x, windows), lambda g: spread_windows(g, windows), x, g)


@pytest.mark.parametrize(("n", "m"), [(7, 3), (3, 7), (5, 5), (6, 4), (1, 2)])
@pytest.mark.parametrize("dim", [-1, -2])
def test_bins_are_adjoint(n, m, dim):
    shape = (2, 3, n) if dim == -1 else (2, n, 3)
    x = numbers(0, shape)
    g = numbers(1, host(pooling._bin_means(tg.Tensor(placed(x)), dim, m)).shape)
    check_adjoint(lambda x: pooling._bin_means(x, dim, m), lambda g: pooling._bin_spread(g, dim, n), x, g)


def test_float16_is_averaged_in_float32():
    x = np.full((1, 1, 4, 4), 60000, dtype="float16")
    for f in (lambda x: avg_pool2d(x, 2), lambda x: adaptive_avg_pool2d(x, 1), lambda x: adaptive_avg_pool2d(x, 3)):
        y = f(tg.Tensor(placed(x)))
        assert y.dtype == "float16" and (host(y) == 60000).all()
    x = tg.Tensor(placed(x), requires_grad=True)
    y = max_pool2d(x, 2)
    assert y.dtype == "float16"
    assert tg.grad(y[0, 0, 0, 0], [x])[0].dtype == "float16"


# --------------------------------------------------------------------------------------------- unpool


@settings(max_examples=60)
@given(
    lead=st.sampled_from([(2, 2), (3,)]),
    size=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    K=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    whole=st.booleans(),
    seed=seeds,
)
def test_max_unpool2d_agrees_with_pytorch(lead, size, K, whole, seed):
    K = tuple(min(k, n) for k, n in zip(K, size, strict=True))
    pooled, places = torch.nn.functional.max_pool2d(
        torch.from_numpy(apart(seed, (*lead, *size))), K, return_indices=True
    )
    output = (*lead, *size) if whole and len(lead) == 2 else size
    judge(
        lambda x, i: max_unpool2d(x, i, K, output_size=output),
        lambda x, i: torch.nn.functional.max_unpool2d(x, i, K, output_size=output),
        pooled.numpy(),
        places.numpy(),
    )


def test_max_unpool2d_sizes():
    x, i = torch.nn.functional.max_pool2d(torch.from_numpy(apart(0, (1, 1, 6, 6))), 2, 2, 1, return_indices=True)
    judge(
        lambda x: max_unpool2d(x, tg.Tensor(placed(i.numpy())), 2, 2, 1),
        lambda x: torch.nn.functional.max_unpool2d(x, i, 2, 2, 1),
        x.numpy(),
    )


def test_max_unpool2d_of_an_empty_batch():
    x, i = max_pool2d(tg.Tensor(placed(np.zeros((0, 2, 4, 4)))), 2, return_indices=True)
    assert max_unpool2d(x, i, 2).shape == (0, 2, 4, 4)


def test_windows_that_chose_the_same_place_add():
    x, i = max_pool2d(tg.Tensor(placed(np.array([[[1.0, 5.0, 2.0]]]))), (1, 2), 1, return_indices=True)
    np.testing.assert_array_equal(host(max_unpool2d(x, i, (1, 2), 1)), [[[0, 10, 0]]])


# --------------------------------------------------------------------------------------------- errors

plain = np.zeros((1, 1, 4, 4))


@pytest.mark.parametrize("f", [max_pool2d, avg_pool2d])
@pytest.mark.parametrize(
    ("x", "arguments", "error", "says"),
    [
        (np.zeros((4, 4)), (2,), ValueError, r"expected input of shape \(N, C, H, W\) or \(C, H, W\), got \(4, 4\)"),
        (np.zeros((1, 1, 1, 4, 4)), (2,), ValueError, r"got \(1, 1, 1, 4, 4\)"),
        (plain > 0, (2,), TypeError, "dtype bool is not supported"),
        (plain, (5,), ValueError, r"no window fits: input of height and width \(4, 4\), kernel_size=5"),
        (np.zeros((1, 1, 0, 4)), (1,), ValueError, "no window fits"),
        (plain, (0,), ValueError, "kernel_size must be at least 1, got 0"),
        (plain, (2.0,), TypeError, "kernel_size must be an integer or a pair"),
        (plain, ((2, 2, 2),), TypeError, "kernel_size must be an integer or a pair"),
        (plain, (2, 0), ValueError, "stride must be at least 1, got 0"),
        (plain, (2, 1, -1), ValueError, "padding must be at least 0, got -1"),
        (plain, (2, 1, 2), ValueError, "padding=2 is above half of kernel_size=2"),
        (plain, ((3, 1), 1, (1, 1)), ValueError, r"padding=\(1, 1\) is above half of kernel_size=\(3, 1\)"),
    ],
)
def test_errors_name_the_argument(f, x, arguments, error, says):
    with pytest.raises(error, match=f"{f.__name__}: .*{says}"):
        f(tg.Tensor(placed(x)), *arguments)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda x: max_pool2d(x.data, 2), TypeError, "max_pool2d: expected a Tensor, got"),
        (lambda x: max_pool2d(x, 2, 1, 0, 0), ValueError, "dilation must be at least 1"),
        (lambda x: max_pool2d(x[..., :1, :1], 2, 1, 1, 2), ValueError, "would lie wholly in the padding"),
        (lambda x: max_pool2d(x.long(), 2).sum().backward(), RuntimeError, "does not require grad"),
        (lambda x: avg_pool2d(x.long(), 2), TypeError, r"avg_pool2d: input of dtype int64 .* x\.to\(tg\.float32\)"),
        (lambda x: avg_pool2d(x, 2, divisor_override=0), ValueError, "divisor_override must not be 0"),
        (lambda x: adaptive_avg_pool2d(x[0, 0], 2), ValueError, r"adaptive_avg_pool2d: expected input of shape"),
        (lambda x: adaptive_avg_pool2d(x, -1), ValueError, "output_size must be at least 0, got -1"),
        (lambda x: adaptive_avg_pool2d(x, (1, 2, 3)), TypeError, r"a pair of them, got \(1, 2, 3\)"),
        (lambda x: adaptive_avg_pool2d(x, 2.5), TypeError, "output_size must be an integer"),
        (lambda x: adaptive_avg_pool2d(x[..., :0], 1), ValueError, "has nothing to average"),
        (lambda x: max_unpool2d(x, x, 2), TypeError, "indices to be an int64 Tensor, got float64"),
        (lambda x: max_unpool2d(x, x.long()[..., :2], 2), ValueError, r"indices of shape \(1, 1, 4, 2\) do not fit"),
        (lambda x: max_unpool2d(x, x.long(), 2, output_size=(8, 10)), ValueError, r"\(2, 2\) away from \(8, 8\), got"),
        (lambda x: max_unpool2d(x, x.long(), 2, output_size=(8,)), ValueError, "expected output_size"),
    ],
)
def test_errors(call, error, says):
    with pytest.raises(error, match=says):
        call(tg.Tensor(placed(plain)))


@pytest.mark.cpu_only("CuPy does not look at the indices")
def test_indices_outside_the_plane():
    x = tg.Tensor(np.ones((1, 1, 1)))
    with pytest.raises(IndexError):
        max_unpool2d(x, tg.Tensor(np.array([[[4]]])), 2)


@settings(max_examples=100)
@given(
    n=st.integers(1, 6), K=st.integers(1, 5), s=st.integers(1, 3), p=st.integers(0, 3), d=st.integers(1, 2),
    ceil=st.booleans(),
)  # fmt: skip
def test_refused_is_what_pytorch_refuses(n, K, s, p, d, ceil):
    x = numbers(0, (1, 1, n, n))

    def refused(f, x):
        try:
            f(x, K, s, p, d, ceil)
        except (ValueError, RuntimeError) as error:
            return str(error)
        return ""

    ours = refused(max_pool2d, tg.Tensor(placed(x)))
    theirs = refused(torch.nn.functional.max_pool2d, torch.from_numpy(x))
    # A window that lies wholly in the padding: PyTorch gives −∞ and an index outside the plane.
    assert bool(ours) == bool(theirs) or "wholly in the padding" in ours, (ours, theirs)
