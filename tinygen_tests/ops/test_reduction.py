"""Reductions: PyTorch's values and gradients over every spelling of dim, exact ties and zeros, safe extremes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tinygen.op import registry
from tinygen.ops import reduction
from tinygen_tests.draws import apart, axes_of, examples, filled_shapes, numbers, off_zero, pairs, seeds, shapes
from tinygen_tests.judge import judge, same, torch

INF = math.inf


def both(name, *args, **kwargs):
    """The same call of the function in tinygen and in PyTorch."""
    return (
        lambda x: getattr(tg, name)(x, *args, **kwargs),
        lambda x: getattr(torch, name)(x, *args, **kwargs),
    )


@st.composite
def calls(draw, several=True, filled=False):
    shape = draw(filled_shapes if filled else shapes)
    return shape, draw(axes_of(shape, several)), draw(st.booleans()), draw(seeds)


# ---------------------------------------------------------------------------------------- against PyTorch


@pytest.mark.parametrize("name", ["sum", "mean", "norm"])
@examples(40)
@given(call=calls())
def test_sum_mean_norm_agree_with_pytorch(name, call):
    shape, dim, keepdim, seed = call
    extra = {}
    if name == "norm":
        extra["p"] = 2  # "fro" of more than two axes PyTorch refuses, and without axes it ignores keepdim
        keepdim = keepdim and dim is not None
    judge(*both(name, dim=dim, keepdim=keepdim, **extra), off_zero(seed, shape))


@pytest.mark.parametrize("name", ["amax", "amin"])
@examples(30)
@given(call=calls(filled=True))
def test_amax_amin_agree_with_pytorch(name, call):
    shape, dim, keepdim, seed = call
    judge(*both(name, dim=() if dim is None else dim, keepdim=keepdim), apart(seed, shape))


@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize("correction", [0, 1])
@examples(20)
@given(call=calls(filled=True))
def test_var_std_agree_with_pytorch(name, correction, call):
    shape, dim, keepdim, seed = call
    axes = range(len(shape)) if dim is None else (dim,) if isinstance(dim, int) else dim
    if not shape or math.prod(shape[d] for d in axes) <= correction or (name, correction) == ("std", 0):
        shape, dim = (3, 2), 0  # of one number there is no deviation to speak of; see the exact tests
    judge(*both(name, dim=dim, correction=correction, keepdim=keepdim), off_zero(seed, shape))


@examples(30)
@given(call=calls(filled=True))
def test_logsumexp_agrees_with_pytorch(call):
    shape, dim, keepdim, seed = call
    theirs = tuple(range(len(shape))) if dim is None else dim
    judge(
        lambda x: tg.logsumexp(x, dim, keepdim),
        lambda x: torch.logsumexp(x, theirs, keepdim) if shape else torch.logsumexp(x, 0),
        numbers(seed, shape),
    )


@examples(40)
@given(call=calls(several=False))
def test_prod_agrees_with_pytorch(call):
    shape, dim, keepdim, seed = call
    if not shape or dim is None:
        judge(tg.prod, lambda x: torch.prod(x), off_zero(seed, shape))
    else:
        judge(*both("prod", dim=dim, keepdim=keepdim), off_zero(seed, shape))


@pytest.mark.parametrize("zeros", [1, 2, 3])
def test_prod_with_zeros_agrees_with_pytorch(zeros):
    x = off_zero(0, (2, 5))
    x[0, :zeros] = 0
    x[1, -1] = 0
    judge(*both("prod", 1), x, order=1)  # PyTorch's own second order divides by the zero
    tg.testing.check_grad(lambda x: tg.prod(x, 1), x)
    tg.testing.check_grad(tg.prod, x[0])


@examples(25)
@given(shape=shapes.filter(len), seed=seeds, data=st.data())
def test_cumsum_agrees_with_pytorch(shape, seed, data):
    judge(*both("cumsum", data.draw(st.integers(-len(shape), len(shape) - 1))), numbers(seed, shape))


@pytest.mark.parametrize("name", ["max", "min"])
@examples(25)
@given(call=calls(several=False, filled=True))
def test_max_min_of_one_axis_agree_with_pytorch(name, call):
    shape, dim, keepdim, seed = call
    dim = 0 if dim is None else dim
    x = apart(seed, shape)
    ours, theirs = both(name, dim=dim, keepdim=keepdim)
    judge(lambda x: ours(x).values, lambda x: theirs(x).values, x)
    same(ours(tg.tensor(x)).indices, theirs(torch.from_numpy(x)).indices)
    judge(*both(name), x)


@pytest.mark.parametrize("name", ["max", "min"])
@examples(10)
@given(shapes=pairs(), seed=seeds)
def test_max_min_of_two_tensors_are_maximum_and_minimum(name, shapes, seed):
    f = lambda m: lambda a, b: getattr(m, name)(a, b)
    judge(f(tg), lambda a, b: getattr(torch, name)(a, b), numbers(seed, shapes[0]), numbers(seed + 1, shapes[1]))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@examples(25)
@given(call=calls(several=False, filled=True))
def test_argmax_argmin_agree_with_pytorch(name, call):
    shape, dim, keepdim, seed = call
    judge(*both(name, dim=dim, keepdim=keepdim), apart(seed, shape))


@pytest.mark.parametrize("name", ["all", "any"])
@examples(20)
@given(call=calls())
def test_all_any_agree_with_pytorch(name, call):
    shape, dim, keepdim, seed = call
    mask = np.asarray(numbers(seed, shape) > -1)
    if dim is None:
        judge(*both(name), mask)
    else:
        judge(*both(name, dim=dim, keepdim=keepdim), mask)


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, "fro", INF, -INF, -1, -2.5])
@pytest.mark.parametrize("dim", [None, 0, -1, (0, 2), (2, 1)])
def test_every_p_norm_agrees_with_pytorch(p, dim):
    """Proves: norm."""
    x = apart(0, (2, 3, 2)) + 0.05
    if p == "fro" and dim is not None and not isinstance(dim, tuple):
        dim = (dim,)
    judge(*both("norm", p=p, dim=dim, keepdim=dim is not None), x)


@examples(40)
@given(shapes=pairs(), seed=seeds)
def test_sum_to_size_is_pytorchs_and_the_adjoint_of_broadcasting(shapes, seed):
    full = np.broadcast_shapes(*shapes)
    x, y = numbers(seed, full), numbers(seed + 1, shapes[0])
    judge(lambda x: x.sum_to_size(shapes[0]), lambda x: x.sum_to_size(shapes[0]), x)
    tg.testing.check_adjoint(lambda x: x.sum_to_size(shapes[0]), lambda y: y.broadcast_to(full), x, y)


# ------------------------------------------------------------------- against numerical differentiation


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.sum(1),
        lambda x: x.mean((0, 2), keepdim=True),
        lambda x: x.var(-1),
        lambda x: x.std((0, 1), correction=0),
        lambda x: x.logsumexp((0, 2)),
        lambda x: x.cumsum(1),
        lambda x: x.prod(2),
        lambda x: x.prod(),
        lambda x: x.norm(),
        lambda x: x.norm(3, dim=1),
        lambda x: x.norm(0.5, dim=(0, 1)),
        lambda x: x.amax((1, 2)),
        lambda x: x.min(1).values,
    ],
)
def test_gradients_are_the_numerical_ones(f):
    tg.testing.check_grad(f, apart(0, (2, 3, 2)) + 0.05, step=1e-3)


def test_linear_reductions_are_adjoint_to_what_their_vjps_do():
    x = numbers(0, (3, 4))
    tg.testing.check_adjoint(lambda x: x.sum(1), lambda y: y.unsqueeze(1).broadcast_to(3, 4), x, numbers(1, (3,)))
    tg.testing.check_adjoint(lambda x: x.mean(0), lambda y: (y / 3).broadcast_to(3, 4), x, numbers(1, (4,)))
    tg.testing.check_adjoint(
        lambda x: x.cumsum(1), lambda y: y.flip(1).cumsum(1).flip(1), x, numbers(1, (3, 4))
    )


# ------------------------------------------------------------------------------------ ties and zeros


@pytest.mark.parametrize("dim", [(), 0, 1, (0, 1)])
@pytest.mark.parametrize("name", ["amax", "amin"])
def test_ties_share_the_gradient_equally_as_in_pytorch(name, dim):
    x = np.array([[1.0, 3, 3], [3, 1, 1]])
    judge(*both(name, dim=dim), x)
    judge(*both("max"), x)


def test_max_of_an_axis_gives_the_gradient_to_the_first_of_ties_as_in_pytorch():
    x = np.array([[1.0, 3, 3], [3, 3, 3]])
    judge(lambda x: tg.max(x, 1).values, lambda x: torch.max(x, 1).values, x)
    assert tg.max(tg.tensor(x), 1).indices.tolist() == [1, 0]
    assert tg.argmin(tg.tensor(x), 1).tolist() == [0, 0]


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, "fro", INF, -INF, -1])
def test_the_norm_of_nothing_but_zeros_has_the_gradient_zero(p):
    x = tg.zeros(3, dtype="float64", requires_grad=True)
    y = x.norm(p)
    (g,) = tg.grad(y, x, create_graph=True)
    assert y.item() == 0 and g.tolist() == [0, 0, 0]
    if g.requires_grad:
        assert np.isfinite(tg.grad(g.sum(), x, allow_unused=True)[0].numpy()).all()


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, INF, -INF, -1, -2])
def test_the_norm_of_some_zeros_agrees_with_pytorch(p):
    judge(*both("norm", p), np.array([0.0, 2.0, -1.0]), order=1)
    judge(*both("norm", p, dim=1), np.array([[0.0, 2.0, -1.0], [0.0, 0, 0], [1.0, 1, -1]]), order=1)


def test_a_gradient_penalty_at_norm_zero_stays_finite():
    w = tg.zeros(3, requires_grad=True)
    x = tg.ones(3, requires_grad=True)
    (g,) = tg.grad((w * x).sum(), x, create_graph=True)  # = w = 0
    ((g.norm() - 1) ** 2).backward()
    assert w.grad.tolist() == [0, 0, 0]


def test_std_of_equal_numbers_has_the_gradient_zero_as_in_pytorch():
    judge(*both("std"), np.full(3, 7.0), order=1)
    judge(*both("std", dim=1, correction=0), np.array([[1.0, 1], [1, 2]]), order=1)


@pytest.mark.filterwarnings("ignore:var:UserWarning")
@pytest.mark.parametrize("shape, correction", [((1,), 1), ((2,), 2), ((3,), 5), ((), 1), ((0,), 0), ((0,), 1)])
def test_variances_without_degrees_of_freedom_are_pytorchs_nan_or_infinity(shape, correction):
    x = numbers(0, shape)
    same(tg.var(tg.tensor(x), correction=correction), torch.var(torch.from_numpy(x), correction=correction))


def test_empty_reductions():
    x = tg.zeros(2, 0)
    assert x.sum(1).tolist() == [0, 0] and x.prod(1).tolist() == [1, 1] and x.prod().item() == 1
    assert x.all(1).tolist() == [True, True] and x.any(1).tolist() == [False, False]
    assert all(math.isnan(v) for v in x.mean(1).tolist()) and math.isnan(x.mean().item())
    assert x.mean(1).dtype == tg.float32 and x.mean(0).shape == (0,)
    assert x.logsumexp(1).tolist() == [-math.inf, -math.inf] and x.logsumexp().dtype == tg.float32
    for name in ("amax", "amin", "max", "min", "argmax", "argmin"):
        with pytest.raises(ValueError, match=name):
            getattr(tg, name)(x)
    assert x.amax(0).shape == (0,) and x.logsumexp(0).shape == (0,)


# --------------------------------------------------------------------------------- numerical safety


@pytest.mark.parametrize("dtype, tol", [("float32", 1e-5), ("float64", 1e-12)])
def test_variance_of_near_equal_numbers_keeps_its_digits(dtype, tol):
    steps = np.array([0, 1, 2, 3, 4], dtype=dtype) / 1024
    x = tg.tensor((4096 + steps).astype(dtype))
    assert x.var().item() == pytest.approx(2.5 / 1024**2, rel=tol)
    assert x.std(correction=0).item() == pytest.approx(math.sqrt(2) / 1024, rel=tol)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_logsumexp_neither_overflows_nor_underflows(dtype):
    big = 1000.0
    x = tg.tensor([[big, big], [-big, -big], [-INF, 0], [-INF, -INF], [0, INF]], dtype=dtype)
    y = x.logsumexp(1)
    assert y.dtype == np.dtype(dtype)
    expected = [big + math.log(2), -big + math.log(2), 0, -INF, INF]
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-3 if dtype == "float16" else 1e-6)


def test_logsumexp_has_finite_gradients_where_everything_is_masked_away():
    x = tg.tensor([[-INF, -INF], [-INF, 1.0], [-1000, 1000]], dtype="float64", requires_grad=True)
    (g,) = tg.grad(x.logsumexp(1).sum(), x, create_graph=True)
    assert g.tolist() == [[0, 0], [0, 1], [0, 1]]
    assert np.isfinite(tg.grad((g * g).sum(), x)[0].numpy()).all()


def test_float32_sums_of_many_numbers_do_not_drift():
    assert tg.full((1_000_000,), 0.1).sum().item() == pytest.approx(100_000, rel=1e-6)
    assert tg.full((100_000,), 0.1, dtype="float16").mean().item() == pytest.approx(0.1, rel=1e-3)


# --------------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", ["sum", "prod", "amax", "amin", "max", "min", "argmax", "argmin", "all", "any"])
def test_result_dtypes_are_pytorchs(dtype, name):
    for x in (np.ones((2, 3), dtype=dtype), np.ones((), dtype=dtype)):
        if (dtype, name) in [("uint8", "all"), ("uint8", "any"), ("bool", "argmax"), ("bool", "argmin")]:
            return  # PyTorch's are uint8 for old times' sake, or not there
        same(getattr(tg, name)(tg.tensor(x)), getattr(torch, name)(torch.from_numpy(x)))
        ours, theirs = getattr(tg, name)(tg.tensor(x), 0), getattr(torch, name)(torch.from_numpy(x), 0)
        if name in ("max", "min"):
            same(ours.indices, theirs.indices)
            ours, theirs = ours.values, theirs.values
        same(ours, theirs)


@pytest.mark.parametrize("dtype", ["bool", "int32", "float16", "float32"])
def test_cumsum_and_logsumexp_dtypes_are_pytorchs(dtype):
    for x in (np.ones(3, dtype=dtype), np.ones((), dtype=dtype)):
        same(tg.tensor(x).cumsum(0), torch.from_numpy(x).cumsum(0))
        if dtype != "bool":
            same(tg.tensor(x).logsumexp(0), torch.from_numpy(x).logsumexp(0), 1e-3)


def test_sum_and_mean_convert_first_where_a_dtype_is_named():
    x = np.array([1, 2, 4])
    judge(lambda x: x.sum(dtype=tg.float64), lambda x: x.sum(dtype=torch.float64), x)
    judge(lambda x: x.mean(dtype=tg.float32), lambda x: x.mean(dtype=torch.float32), x)
    assert tg.tensor([1.9, 2.9]).sum(dtype=tg.int64).item() == 3


# --------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ["sum", "mean", "var", "amax", "all", "norm", "logsumexp", "prod", "argmax", "max"])
def test_axes_out_of_range_are_refused(name):
    with pytest.raises(IndexError, match="out of (range|bounds)"):
        getattr(tg, name)(tg.ones(2, 3), dim=2)
    with pytest.raises(IndexError, match="out of (range|bounds)"):
        getattr(tg, name)(tg.ones(2, 3), dim=-3)
    for dim in (1, -2):
        with pytest.raises(IndexError, match="out of (range|bounds)"):
            getattr(tg, name)(tg.tensor(1.0), dim=dim)


@pytest.mark.parametrize("name", ["sum", "mean", "var", "amax", "all", "norm", "logsumexp"])
def test_axes_named_twice_or_no_axes_at_all_are_refused(name):
    with pytest.raises(ValueError, match="twice"):
        getattr(tg, name)(tg.ones(2, 3), dim=(1, -1))
    for wrong in (True, 0.5, "x", (0.5,)):
        with pytest.raises(TypeError, match="dim"):
            getattr(tg, name)(tg.ones(2, 3), dim=wrong)


def test_means_of_integers_are_refused_as_in_pytorch():
    for f in (tg.mean, tg.var, tg.std):
        with pytest.raises(TypeError, match="expected floating numbers, got int64"):
            f(tg.tensor([1, 2]))


def test_prod_of_several_axes_is_refused_as_in_pytorch():
    with pytest.raises(TypeError, match="one axis"):
        tg.ones(2, 3).prod((0, 1))


@pytest.mark.parametrize("p", ["nuc", None, "2"])
def test_norms_that_are_not_here_are_refused(p):
    with pytest.raises(TypeError, match="norm: expected p"):
        tg.ones(2, 2).norm(p)


def test_sizes_that_do_not_broadcast_are_refused():
    for size in [(2,), (4, 3), (1, 2, 3), ()]:
        if size == ():
            assert tg.ones(2, 3).sum_to_size(size).item() == 6
            continue
        with pytest.raises(ValueError, match="does not broadcast"):
            tg.ones(2, 3).sum_to_size(size)


def test_what_a_reduction_leaves_out_is_refused_by_name():
    with pytest.raises(TypeError, match="out"):
        tg.sum(tg.ones(2), out=tg.ones(1))
    with pytest.raises(TypeError, match="dtype"):
        tg.norm(tg.ones(2), dtype=tg.float64)


def test_every_op_of_the_file_is_tested_here():
    declared = {o.name for o in registry.values() if o.module == reduction.__name__}
    tested = "sum sum_to_size mean cumsum amax amin argmax argmin all any logsumexp".split()
    assert declared == set(tested), declared ^ set(tested)
