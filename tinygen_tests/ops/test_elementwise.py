"""Elementwise ops: PyTorch's values and gradients to second order, exact ties and zeros, dtypes, errors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tinygen.op import registry
from tinygen.ops import elementwise
from tinygen_tests.draws import apart, examples, numbers, off_zero, pairs, seeds, shapes
from tinygen_tests.judge import judge, same, torch

# name → numbers away from its kinks and poles
UNARY = {
    "neg": numbers,
    "abs": off_zero,
    "sign": off_zero,
    "floor": lambda seed, shape: np.floor(numbers(seed, shape)) + 0.37,
    "ceil": lambda seed, shape: np.floor(numbers(seed, shape)) + 0.37,
    "round": lambda seed, shape: np.floor(numbers(seed, shape)) + 0.37,
    "exp": numbers,
    "expm1": numbers,
    "log": lambda seed, shape: numbers(seed, shape, 0.2, 3),
    "log1p": lambda seed, shape: numbers(seed, shape, -0.7, 2),
    "sqrt": lambda seed, shape: numbers(seed, shape, 0.2, 3),
    "rsqrt": lambda seed, shape: numbers(seed, shape, 0.2, 3),
    "square": numbers,
    "reciprocal": off_zero,
    "sin": numbers,
    "cos": numbers,
    "tanh": numbers,
    "sigmoid": numbers,
    "erf": numbers,
}
ARITHMETIC = ["add", "sub", "mul", "div", "maximum", "minimum"]


# ----------------------------------------------------------------------------------------- against PyTorch


@pytest.mark.parametrize("name", UNARY)
@examples(12)
@given(shape=shapes, seed=seeds)
def test_unary_ops_agree_with_pytorch(name, shape, seed):
    """Proves: sqrt, sigmoid."""
    judge(getattr(tg, name), lambda x: getattr(torch, name)(x), UNARY[name](seed, shape))


@pytest.mark.parametrize("name", ARITHMETIC)
@examples(25)
@given(shapes=pairs(), seed=seeds)
def test_binary_ops_agree_with_pytorch_over_broadcasting_shapes(name, shapes, seed):
    a, b = off_zero(seed, shapes[0]), off_zero(seed + 1, shapes[1])
    judge(getattr(tg, name), lambda x, y: getattr(torch, name)(x, y), a, b)


@examples(25)
@given(shapes=pairs(), seed=seeds)
def test_pow_agrees_with_pytorch_for_positive_bases(shapes, seed):
    judge(tg.pow, lambda x, y: x**y, numbers(seed, shapes[0], 0.2, 2), off_zero(seed + 1, shapes[1]))


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 7, -1, -2, 0.5, -0.5, 1.7, 2.0, 0.0])
def test_pow_with_a_number_agrees_with_pytorch(exponent):
    x = off_zero(0, (2, 3)) if float(exponent).is_integer() else numbers(0, (2, 3), 0.3, 2)
    judge(lambda x: x**exponent, lambda x: x**exponent, x)


@pytest.mark.parametrize("base", [2, 0.5, 1, 3.7])
def test_a_number_to_the_power_of_a_tensor_agrees_with_pytorch(base):
    judge(lambda x: base**x, lambda x: base**x, off_zero(0, (2, 3)))


@examples(25)
@given(shapes=pairs(3), seed=seeds)
def test_where_agrees_with_pytorch_over_broadcasting_shapes(shapes, seed):
    mask = np.random.default_rng(seed).random(shapes[0]) < 0.5
    judge(tg.where, lambda c, a, b: torch.where(c, a, b), mask, numbers(seed, shapes[1]), numbers(seed + 1, shapes[2]))


@pytest.mark.parametrize(
    "low, high", [(None, 0.5), (-0.5, None), (-0.5, 0.5), (0.5, -0.5), (-1, 1), (0.0, 0)], ids=str
)
def test_clamp_by_numbers_agrees_with_pytorch(low, high):
    judge(lambda x: tg.clamp(x, low, high), lambda x: torch.clamp(x, low, high), apart(0, (3, 5)))
    judge(lambda x: x.clamp(min=low, max=high), lambda x: x.clamp(min=low, max=high), apart(1, (4,)))


@examples(25)
@given(shapes=pairs(3, min_side=1), seed=seeds)
def test_clamp_by_tensors_agrees_with_pytorch(shapes, seed):
    # x has the full shape: PyTorch's own gradient fails where the bounds are larger, or empty.
    x, low, high = (off_zero(seed + k, s) for k, s in enumerate((np.broadcast_shapes(*shapes), *shapes[1:])))
    judge(tg.clamp, lambda x, a, b: torch.clamp(x, a, b), x, low, high)


def test_signed_zero_and_infinities_agree_with_pytorch():
    x = np.array([0.0, -0.0, 1.0, -np.inf, np.inf, np.nan])
    for name in ("abs", "erf", "sigmoid", "tanh"):
        same(getattr(tg, name)(tg.tensor(x)), getattr(torch, name)(torch.from_numpy(x)), what=name)


@pytest.mark.parametrize("operator", ["+", "-", "*", "/", "**", "==", "!=", "<", "<=", ">", ">="])
@pytest.mark.parametrize("number", [2, 0.5, True])
def test_operators_with_python_numbers_on_either_side_agree_with_pytorch(operator, number):
    if operator in "-**" and number is True:
        return  # PyTorch has neither x − True nor True ** x
    x = numbers(0, (2, 2), 0.3, 2)
    for text in (f"x {operator} n", f"n {operator} x"):
        f = lambda x, text=text: eval(text, {"x": x, "n": number})
        judge(f, f, x)


@pytest.mark.parametrize("name", ["add", "mul", "div", "sub", "pow", "maximum", "minimum"])
def test_the_same_tensor_twice_agrees_with_pytorch(name):
    x = numbers(0, (3,), 0.3, 2)
    judge(lambda x: getattr(tg, name)(x, x), lambda x: getattr(torch, name)(x, x), x)


@pytest.mark.cpu_only("about NumPy arrays beside tensors")
def test_raw_arrays_are_constants_on_either_side():
    x = numbers(0, (3,), 0.3, 2)
    a = numbers(1, (2, 3), 0.3, 2)
    t = torch.from_numpy(a)
    for ours, theirs in [
        (lambda x: x * a, lambda x: x * t),
        (lambda x: a * x, lambda x: t * x),
        (lambda x: a - x, lambda x: t - x),
        (lambda x: a / x, lambda x: t / x),
        (lambda x: x**a, lambda x: x**t),
        (lambda x: a**x, lambda x: t**x),
        (lambda x: tg.maximum(x, a), lambda x: torch.maximum(x, t)),
        (lambda x: tg.where(a > 1, x, a), lambda x: torch.where(t > 1, x, t)),
        (lambda x: a > x, lambda x: t > x),
    ]:
        judge(ours, theirs, x, manners=False)


# -------------------------------------------------------------------- against numerical differentiation


@pytest.mark.parametrize("name", UNARY)
def test_unary_gradients_are_the_numerical_ones(name):
    tg.testing.check_grad(getattr(tg, name), UNARY[name](1, (2, 3)))
    tg.testing.check_grad(getattr(tg, name), UNARY[name](2, ()))


@pytest.mark.parametrize("name", [*ARITHMETIC, "pow"])
def test_binary_gradients_are_the_numerical_ones(name):
    f = getattr(tg, name)
    tg.testing.check_grad(f, numbers(0, (2, 1), 0.3, 2), numbers(1, (3,), 0.35, 2.1))
    tg.testing.check_grad(lambda x: f(x, x), numbers(2, (3,), 0.3, 2))


def test_third_derivatives_of_a_composite_are_the_closed_form():
    x = tg.tensor([0.3, -0.7, 1.2], dtype="float64", requires_grad=True)
    y = tg.exp(tg.sin(x)) * x**3
    for _ in range(3):
        (y,) = tg.grad(y.sum(), x, create_graph=True)
    a = x.detach().numpy()
    s, c, e = np.sin(a), np.cos(a), np.exp(np.sin(a))
    u = [e, e * c, e * (c**2 - s), e * (c**3 - 3 * s * c - c)]  # e^(sin x) and its derivatives
    v = [a**3, 3 * a**2, 6 * a, 6.0]
    expected = u[3] * v[0] + 3 * u[2] * v[1] + 3 * u[1] * v[2] + u[0] * v[3]
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-12)


# ---------------------------------------------------------------------------- ties, zeros and infinities


def gradients(f, *values):
    xs = [tg.tensor(v, dtype="float64", requires_grad=True) for v in values]
    return [g.numpy().tolist() for g in tg.grad(f(*xs).sum(), xs)]


def test_absolute_value_has_the_derivative_zero_at_zero():
    assert gradients(tg.abs, [-2.0, 0.0, -0.0, 3.0]) == [[-1, 0, 0, 1]]


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_tied_extremes_share_the_gradient_as_in_pytorch(name):
    a, b = np.array([1.0, 2, 3, np.inf]), np.array([1.0, 1, 4, np.inf])
    judge(getattr(tg, name), lambda x, y: getattr(torch, name)(x, y), a, b)
    assert gradients(tg.maximum, [1.0, 2, 3], [1.0, 1, 4]) == [[0.5, 1, 0], [0.5, 0, 1]]
    assert gradients(tg.minimum, [1.0, 2, 3], [1.0, 1, 4]) == [[0.5, 0, 1], [0.5, 1, 0]]


def test_clamp_passes_the_gradient_at_its_bounds_as_in_pytorch():
    x = np.array([-2.0, -1, 0, 1, 2])
    judge(lambda x: x.clamp(-1, 1), lambda x: x.clamp(-1, 1), x)
    assert gradients(lambda x: x.clamp(-1, 1), x.tolist()) == [[0, 1, 1, 1, 0]]
    low, high = np.full(5, -1.0), np.full(5, 1.0)
    judge(tg.clamp, lambda x, a, b: torch.clamp(x, a, b), x, low, high)


def test_clamp_to_equal_tensor_bounds_gives_the_gradient_to_the_bound_that_the_value_is():
    # PyTorch drops the gradient of [0] here: neither x nor any bound receives it.
    assert gradients(tg.clamp, [0.0, 2, 5], [2.0, 2, 2], [2.0, 2, 2]) == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_pow_at_zero_base_and_zero_exponent():
    da, db = gradients(tg.pow, [0.0, 0.0, 0.0, 2.0], [0.0, 2.0, 1.0, 0.0])
    assert da == [0, 0, 1, 0]
    np.testing.assert_allclose(db, [0, 0, 0, math.log(2)])
    with np.errstate(divide="ignore"):
        assert gradients(tg.pow, [0.0], [0.5]) == [[math.inf], [0]]
        assert gradients(lambda b: 0**b, [-1.0]) == [[-math.inf]]


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.0, 1.5])
def test_pow_of_zero_by_a_number_agrees_with_pytorch(exponent):
    judge(lambda x: x**exponent, lambda x: x**exponent, np.array([0.0, 1.0, 2.0]), order=2 if exponent != 1.5 else 1)


def test_pow_at_zero_agrees_with_pytorch_in_both_arguments():
    a, b = np.array([0.0, 0.0, 0.0, 2.0]), np.array([0.0, 2.0, 1.0, 0.0])
    judge(tg.pow, lambda x, y: x**y, a, b, order=1)
    judge(lambda y: 0.0**y, lambda y: 0.0**y, np.array([0.0, 1.0, 2.0]), order=1)
    judge(lambda y: 0**y, lambda y: 0**y, np.array([0.5, 1.0, 2.0]), order=1)


def test_the_mixed_second_derivative_of_pow_at_exponent_zero_is_one_over_the_base():
    # ∂²(aᵇ)/∂a∂b = aᵇ⁻¹(1 + b ln a) = 1/a at b = 0
    a = tg.tensor(4.0, dtype="float64", requires_grad=True)
    b = tg.tensor(0.0, dtype="float64", requires_grad=True)
    (db,) = tg.grad(a**b, b, create_graph=True)
    assert tg.grad(db, a)[0].item() == 0.25
    (da,) = tg.grad(a**b, a, create_graph=True)
    assert tg.grad(da, b)[0].item() == 0.25


def test_negative_bases_have_real_derivatives_in_the_base():
    judge(lambda x: x**3, lambda x: x**3, np.array([-2.0, -0.5]))
    judge(lambda x, b: x**b, lambda x, b: x**b, np.array([-2.0, -0.5, -1]), np.array([2, 3, -1]))


def test_sqrt_at_zero_is_infinite_as_in_pytorch():
    with np.errstate(divide="ignore"):
        assert gradients(tg.sqrt, [0.0]) == [[math.inf]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_sigmoid_saturates_without_overflow(dtype):
    x = tg.tensor([-1000.0, -50.0, 0.0, 50.0, 1000.0], dtype=dtype, requires_grad=True)
    y = tg.sigmoid(x)
    assert y.detach().numpy()[[0, 2, 4]].tolist() == [0, 0.5, 1]
    (g,) = tg.grad(y.sum(), x)
    assert g.dtype == np.dtype(dtype) and g.numpy()[[0, 2, 4]].tolist() == [0, 0.25, 0]


@pytest.mark.parametrize("dtype, tol", [("float32", 3e-7), ("float64", 1e-15)])
def test_sigmoid_keeps_small_values_small_instead_of_zero(dtype, tol):
    x = np.array([-80.0, -40, -20, -5, -1e-3, 0, 3], dtype=dtype)
    exact = [math.exp(v) / (1 + math.exp(v)) for v in x.astype("float64")]
    np.testing.assert_allclose(tg.sigmoid(tg.tensor(x)).numpy(), exact, rtol=tol)


def test_expm1_and_log1p_are_exact_for_small_numbers():
    x = tg.tensor([1e-12], dtype="float64")
    assert abs(tg.expm1(x).item() - 1e-12) < 1e-23
    assert abs(tg.log1p(x).item() - 1e-12) < 1e-23


# --------------------------------------------------------------------------------------------- dtypes

INTEGER_SAFE = ["exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tanh", "sigmoid", "erf"]


@pytest.mark.parametrize("name", INTEGER_SAFE)
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
def test_floating_functions_of_integers_give_the_default_dtype_as_in_pytorch(name, dtype):
    x = np.ones(3, dtype=dtype)
    same(getattr(tg, name)(tg.tensor(x)), getattr(torch, name)(torch.from_numpy(x)), 1e-6)


@pytest.mark.parametrize("name", ["abs", "sign", "floor", "ceil", "round", "square", "neg"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_integers_stay_integers_as_in_pytorch(name, dtype):
    x = np.array([0, 1, 7], dtype=dtype)
    same(getattr(tg, name)(tg.tensor(x)), getattr(torch, name)(torch.from_numpy(x)))


@pytest.mark.parametrize("name", [*UNARY, *ARITHMETIC, "pow"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_low_precision_stays_from_value_to_second_gradient(name, dtype):
    f = getattr(tg, name)
    n = 1 if name in UNARY else 2
    xs = [tg.Tensor(numbers(k, (3,), 0.3, 0.9).astype(dtype)).requires_grad_() for k in range(n)]
    y = f(*xs)
    assert y.dtype == np.dtype(dtype)
    first = tg.grad(y, xs, tg.ones_like(y), create_graph=True)
    second = tg.grad([(d * x).sum() for d, x in zip(first, xs)], xs)
    assert {d.dtype for d in (*first, *second)} == {np.dtype(dtype)}


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("text", "x + 1,x + 0.5,x * 2,x / 2,x / x,2 - x,x * True,1 / x,x ** 2".split(","))
def test_python_numbers_never_promote_beyond_their_kind(dtype, text):
    x = np.ones(3, dtype=dtype)
    if dtype == "bool" and ("**" in text or "-" in text):
        return  # PyTorch has neither for booleans
    same(eval(text, {"x": tg.tensor(x)}), eval(text, {"x": torch.from_numpy(x)}))


@pytest.mark.parametrize("a, b", [(1.0, 0.0), (1, 0), (True, False), (1, 0.0), (2.5, True)])
@pytest.mark.parametrize("default", ["float32", "float64"])
def test_where_of_two_numbers_has_the_dtype_that_pytorch_gives_it(a, b, default):
    mask = np.array([True, False])
    tg.set_default_dtype(default)
    torch.set_default_dtype(getattr(torch, default))
    try:
        same(tg.where(tg.tensor(mask), a, b), torch.where(torch.from_numpy(mask), a, b))
    finally:
        tg.set_default_dtype("float32")
        torch.set_default_dtype(torch.float32)


def test_gradients_of_mixed_dtypes_come_back_in_each_arguments_own():
    a = tg.ones(3, requires_grad=True)
    b = tg.ones(3, dtype="float64", requires_grad=True)
    for f in (tg.add, tg.mul, tg.div, tg.sub, tg.pow, tg.maximum):
        y = f(a, b)
        assert y.dtype == tg.float64
        da, db = tg.grad(y.sum(), [a, b])
        assert (da.dtype, db.dtype) == (tg.float32, tg.float64)


# --------------------------------------------------------------------------------------------- errors


def test_subtracting_booleans_is_refused_as_in_pytorch():
    with pytest.raises(TypeError, match="sub"):
        tg.tensor([True]) - tg.tensor([False])


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("wrong", [[1.0, 2.0], None, "x"], ids=str)
def test_unary_ops_refuse_what_is_no_tensor(name, wrong):
    with pytest.raises(TypeError, match=rf"(?s){name}.*(Tensor|tensor)"):
        getattr(tg, name)(wrong)


@pytest.mark.parametrize("name", [*ARITHMETIC, "pow"])
@pytest.mark.parametrize("wrong", [[1.0, 2.0], None, "x"], ids=str)
def test_binary_ops_refuse_what_is_no_tensor(name, wrong):
    for arguments in ((tg.ones(2), wrong), (wrong, tg.ones(2))):
        with pytest.raises(TypeError, match=rf"(?s){name}.*Tensor"):
            getattr(tg, name)(*arguments)


def test_lists_are_refused_on_either_side_of_an_operator():
    with pytest.raises(TypeError, match=r"add.*expected a Tensor or a number, got list"):
        tg.ones(2) + [1.0, 2.0]
    with pytest.raises(TypeError, match=r"add.*expected a Tensor or a number, got list"):
        [1.0, 2.0] + tg.ones(2)


def test_shapes_that_do_not_broadcast_are_named():
    with pytest.raises(ValueError, match=r"mul\(input: float32 \(2, 3\) on \S+, other: float32 \(4,\) on \S+\)"):
        tg.ones(2, 3) * tg.ones(4)


def test_unknown_and_missing_arguments_are_named():
    with pytest.raises(TypeError, match="alpha.*unknown; it takes input, other"):
        tg.add(tg.ones(2), tg.ones(2), alpha=2)
    with pytest.raises(TypeError, match="rounding_mode"):
        tg.div(tg.ones(2), tg.ones(2), rounding_mode="floor")
    with pytest.raises(TypeError, match="misses the argument 'other'"):
        tg.add(tg.ones(2))
    with pytest.raises(TypeError, match="'input' is given twice"):
        tg.add(tg.ones(2), tg.ones(2), input=tg.ones(2))
    with pytest.raises(TypeError, match="takes 2 arguments .*got 3"):
        tg.add(tg.ones(2), tg.ones(2), tg.ones(2))


@pytest.mark.parametrize("wrong, name", [([True], "list"), (True, "bool"), (1.0, "float"), (None, "NoneType")])
def test_conditions_that_are_no_boolean_tensor_are_refused(wrong, name):
    with pytest.raises(TypeError, match=f"where: expected a boolean tensor as the condition, got {name}"):
        tg.where(wrong, tg.ones(1), 0.0)
    for dtype in ("float32", "int64", "uint8"):
        with pytest.raises(TypeError, match=f"where: expected a boolean tensor as the condition, got {dtype}"):
            tg.where(tg.ones(1, dtype=dtype), 1.0, 0.0)


def test_clamp_without_bounds_is_refused():
    with pytest.raises(ValueError, match="min, max or both"):
        tg.ones(2).clamp()


def test_two_numbers_are_no_tensors():
    with pytest.raises(TypeError, match=r"Tensor.*tg\.tensor"):
        tg.add(1, 2)
    with pytest.raises(TypeError, match=r"Tensor.*tg\.tensor"):
        tg.maximum(1.0, 2.0)


def test_every_op_of_the_file_is_tested_here():
    declared = {o.name for o in registry.values() if o.module == elementwise.__name__}
    tested = {*UNARY, *ARITHMETIC, "pow", "where", "zeros_like"}
    assert declared == tested, declared ^ tested


def test_the_derivative_of_sqrt_like_forms_survives_a_zero_cotangent():
    x = tg.tensor([1.0, 4.0], requires_grad=True)
    (g,) = tg.grad(tg.sqrt(x), x, tg.zeros(2))
    assert g.tolist() == [0, 0]


@examples(20)
@given(seed=seeds, scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_float32_values_are_pytorchs_to_float32_precision(seed, scale):
    x = (numbers(seed, (5,)) * scale).astype("float32")
    for name in ("tanh", "sigmoid", "erf", "sin"):
        same(getattr(tg, name)(tg.tensor(x)), getattr(torch, name)(torch.from_numpy(x)), 1e-6, name)


# ------------------------------------------------------------------------------------------- large arrays


@pytest.mark.cpu_only("NumPy's blocks")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "sigmoid"])
def test_large_arrays_have_the_values_of_their_numbers(name, dtype):
    """Threads share them block by block; infinities, NaN and signed zeros come out as in small ones."""
    f = getattr(tg, name)
    x = np.random.default_rng(0).standard_normal((3, 700, 401)).astype(dtype) * 30
    x[0, 0, :7] = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e4, -1e4]
    with np.errstate(all="ignore"):
        small = np.stack([f(tg.tensor(row)).numpy() for row in x.reshape(-1, 401)]).reshape(x.shape)
        for order in ((0, 1, 2), (2, 0, 1)):
            moved = tg.tensor(np.ascontiguousarray(x.transpose(order))).permute(np.argsort(order).tolist())
            large = f(moved).numpy()
            np.testing.assert_allclose(large, small, rtol=4e-7 if dtype == "float32" else 1e-15, atol=0)
            assert (np.signbit(large) == np.signbit(small))[np.isfinite(small)].all()
            assert large.strides == moved.data.strides
