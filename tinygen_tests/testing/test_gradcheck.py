"""check_grad and check_adjoint: they pass what is right, and catch every kind of wrong gradient seeded here."""

import numpy as np
import pytest
from hypothesis import given

import tinygen as tg
from tinygen.testing import GradientError, check_adjoint, check_grad
from tinygen_tests.draws import examples, numbers, off_zero, seeds, shapes

pytestmark = pytest.mark.cpu_only("the seeded ops are written with NumPy; check_op's tests run on either")

X = numbers(0, (3, 3), 0.4, 1.6)
Y = numbers(1, (3, 3), 0.4, 1.6)
WHERE = r"gradient of argument \d, of shape .*: the vjp says .*, the numbers "


def unary(forward, rule):
    declared = tg.op(forward)
    declared.vjp("x")(rule)
    return declared


def product(rule_a, rule_b, **options):
    @tg.op(**options)
    def product(a, b):
        return a * b

    product.vjp("a")(rule_a)
    product.vjp("b")(rule_b)
    return product


def sine(x):
    return np.sin(x)


# --------------------------------------------------------------------------------------- what is right


RIGHT = {
    "exp": lambda x: tg.exp(x),
    "a composite": lambda x: (tg.sin(x) * x**3).sum(1) / tg.log(x).mean(),
    "a constant": lambda x: tg.ones(3, dtype=x.dtype) * 2,
    "the input itself": lambda x: x,
    "a view": lambda x: x.T[1:],
    "a copy of parts": lambda x: tg.cat([x, x[:1]]),
    "a linear function": lambda x: x @ tg.tensor(Y, dtype=x.dtype),
    "a mask": lambda x: (x > 1).to(x.dtype) * x,
    "an unused part": lambda x: x[0],
    "a detached part": lambda x: x * 1 + 0 * x,
    "a piecewise constant": lambda x: tg.floor(x),
    "not differentiable at all": lambda x: (x > 1).to(x.dtype),
    "a number": lambda x: x.sum(),
    "an empty result": lambda x: x[:0],
}


@pytest.mark.parametrize("f", RIGHT.values(), ids=RIGHT.keys())
def test_right_gradients_pass(f):
    check_grad(f, X)


def test_right_gradients_of_every_order_pass():
    for order in (1, 2, 3):
        check_grad(lambda x, y: tg.tanh(x * y), X[0], Y[0], order=order)


@examples(25)
@given(shape=shapes, seed=seeds)
def test_right_gradients_pass_in_every_shape(shape, seed):
    check_grad(lambda x: tg.sigmoid(x) * x, numbers(seed, shape))
    check_grad(lambda x: x.sum(), numbers(seed, shape))


KINKED = {
    "|x|": tg.abs,
    "relu": lambda x: tg.where(x > 0, x, 0.0),
    "relu by maximum": lambda x: tg.maximum(x, 0.0),
    "clamp": lambda x: x.clamp(-1, 1),
    "amax": lambda x: x.amax(1),
    "norm": lambda x: x.norm(dim=1),
}


@pytest.mark.parametrize("f", KINKED.values(), ids=KINKED.keys())
def test_right_gradients_away_from_kinks_pass(f):
    check_grad(f, off_zero(0, (4, 3), 0.2, 0.9))


@pytest.mark.parametrize("distance", [1e-2, 1e-3, 1e-4])
def test_a_kink_within_the_first_steps_reach_is_stepped_around(distance):
    check_grad(tg.abs, np.array([distance, -2 * distance, 1.0]))
    check_grad(lambda x: tg.where(x > 0, x * x, 0 * x), np.array([distance, -distance]))


def test_a_pole_within_the_first_steps_reach_is_stepped_around():
    with np.errstate(invalid="ignore", divide="ignore"):
        check_grad(tg.log, np.array([1e-3, 5.0]))
        check_grad(tg.sqrt, np.array([2e-3, 1.0]))


def test_large_inputs_are_checked_along_random_directions():
    check_grad(lambda x: tg.sin(x).sum(0), numbers(0, (30, 20)))
    wrong = unary(sine, lambda g, x: g * tg.cos(x) * 1.001)
    with pytest.raises(GradientError, match="at direction .*6 of 6 directions are wrong"):
        check_grad(wrong, numbers(0, (30, 20)))


def test_integer_and_boolean_inputs_are_passed_on():
    check_grad(lambda x, i: x[i], X, np.array([0, 2, 2]))
    check_grad(lambda m, x, k: tg.where(m, x, k), tg.tensor(X > 1), X, tg.tensor(3))


def test_inputs_of_lower_precision_are_checked_in_float64():
    check_grad(tg.exp, X.astype("float32"))
    check_grad(tg.exp, tg.tensor(X.astype("float16"), requires_grad=True))


def test_functions_of_very_different_scales():
    check_grad(lambda x: x * 1e8, X)
    check_grad(lambda x: x * 1e-8 + 3, X, atol=0)
    check_grad(lambda x: x.exp(), X * 1e-3)
    check_grad(lambda x: x**2, X * 1e3)


# --------------------------------------------------------------------------------------- what is wrong

FIRST_ORDER = {
    "wrong sign": (unary(sine, lambda g, x: -g * tg.cos(x)), "Every sign is wrong"),
    "missing factor": (unary(sine, lambda g, x: g * tg.cos(x) * 0.5), "A factor of 2 is missing"),
    "transposed": (unary(lambda x: x @ x, lambda g, x: (g @ x.mT + x.mT @ g).mT), ""),
    "transposed result": (unary(lambda x: x * 1, lambda g: g.mT), ""),
    "ignored cotangent": (unary(sine, lambda g, x: tg.cos(x)), ""),
    "zeros": (unary(sine, lambda g: g * 0), "The vjp gives zeros"),
    "wrong function": (unary(sine, lambda g, x: g * tg.sin(x)), ""),
    "wrong in one element": (
        unary(sine, lambda g, x: g * tg.cos(x) * tg.tensor([[1, 1, 1], [1, 1.001, 1], [1, 1, 1]], dtype=g.dtype)),
        "1 of 9 elements are wrong",
    ),
    "nearly right": (unary(sine, lambda g, x: g * tg.cos(x) * (1 + 1e-5)), ""),
    "infinite": (unary(sine, lambda g, x: g * tg.cos(x) / tg.where(x > 1, 0.0 * x, 1.0)), "not finite"),
    "NaN at a point": (unary(sine, lambda g, x: g * tg.where(x > 1, float("nan"), tg.cos(x))), "not finite"),
    "huge": (unary(sine, lambda g, x: g * tg.cos(x) * 1e12), ""),
    "detached": (lambda x: tg.sin(x.detach()) + 0 * x, "The vjp gives zeros"),
    "detached in part": (lambda x: x * x.detach(), "A factor of 2 is missing"),
}


@pytest.mark.parametrize("f, hint", FIRST_ORDER.values(), ids=FIRST_ORDER.keys())
def test_wrong_first_derivatives_are_caught(f, hint):
    with np.errstate(divide="ignore", invalid="ignore"):
        with pytest.raises(GradientError, match=f"^{WHERE}.*{hint}"):
            check_grad(f, X, order=1)


def test_wrong_second_derivatives_are_caught_at_order_two_alone():
    def raw(g, x):
        return tg.Tensor(g.data * np.cos(x.data))

    def half_raw(g, x):
        return g * tg.Tensor(np.cos(x.data))

    def detached(g, x):
        return g * tg.cos(x.detach())

    for rule in (raw, half_raw, detached):
        f = unary(sine, rule)
        check_grad(f, X, order=1)
        with pytest.raises(GradientError, match="^∂gradient of argument"):
            check_grad(f, X)


def test_wrong_third_derivatives_are_caught_at_order_three():
    cosine = unary(lambda x: np.cos(x), lambda g, x: -g * tg.Tensor(np.sin(x.data)))
    f = unary(sine, lambda g, x: g * cosine(x))
    check_grad(f, X[0], order=2)
    with pytest.raises(GradientError, match="^∂∂gradient"):
        check_grad(f, X[0], order=3)


def test_a_gradient_missing_for_one_of_two_equal_arguments_is_caught():
    half = product(lambda g, b: g * b, lambda g: g * 0)
    with pytest.raises(GradientError, match=WHERE):
        check_grad(lambda x: half(x, x), X)
    with pytest.raises(GradientError, match="one tensor passed as argument 0 and as argument 1 must get the sum"):
        check_grad(lambda a, b: a * b if a is not b else a * b.detach(), X, Y)
    with pytest.raises(GradientError, match="^gradient of argument 1"):
        check_grad(half, X, Y)


def test_swapped_arguments_are_caught():
    f = product(lambda g, a: g * a, lambda g, b: g * b)
    check_grad(f, X, X)  # where the two are equal, nobody can tell
    with pytest.raises(GradientError, match="^gradient of argument 0"):
        check_grad(f, X, Y)


def test_missing_unbroadcast_is_caught():
    f = product(lambda g, b: g * b, lambda g, a: g * a)
    check_grad(f, X, Y)
    with pytest.raises(RuntimeError, match=r"returned a gradient of shape \(3, 3\).* argument of shape \(3,\)"):
        check_grad(f, X, Y[0])
    wrong = product(lambda g, b: g * b, lambda g, a: (g * a)[0])
    with pytest.raises(GradientError, match="^gradient of argument 1"):
        check_grad(wrong, X, Y[0])


def test_a_float64_leak_is_caught():
    with pytest.raises(GradientError, match="f of float32 inputs is float64"):
        check_grad(lambda x: x * tg.tensor(Y), X)
    with pytest.raises(GradientError, match="f of float32 inputs is float64"):
        check_grad(unary(lambda x: np.sin(x) * np.array([1.0]), lambda g, x: (g * tg.cos(x)).to(x.dtype)), X)
    leaky = unary(sine, lambda g, x: tg.Tensor(g.data * np.cos(x.data).astype("float64")))
    with pytest.raises((GradientError, RuntimeError), match="float64"):
        check_grad(leaky, X, order=1)


def test_float64_that_goes_through_float32_is_caught():
    with pytest.raises(GradientError, match="f of float64 inputs is float32"):
        check_grad(lambda x: x.float() * 2, X)
    rule = lambda g, x: (g.float() * tg.cos(x).float()).to(g.dtype)
    with pytest.raises(GradientError, match=WHERE):
        check_grad(unary(sine, rule), X, rtol=1e-9, atol=0, order=1)


def test_an_input_that_is_written_to_is_caught():
    def in_place(x):
        x *= 2
        return x.copy()

    with pytest.raises(GradientError, match="wrote to its argument 0"):
        check_grad(unary(in_place, lambda g: 2 * g), X)

    def rule(g, x):
        result = g * tg.cos(x)
        x.data += 1e-3
        return result

    with pytest.raises(GradientError, match="wrote to its argument 0"):
        check_grad(unary(sine, rule), X)


def test_a_cotangent_that_is_written_to_is_caught():
    def rule(g, x):
        g.data *= np.cos(x.data)
        return g * 1

    with pytest.raises(GradientError, match="wrote to the gradient that it was given"):
        check_grad(unary(sine, rule), X, order=1)


def test_gradients_that_share_a_buffer_are_caught():
    buffer = np.empty((3, 3))

    def rule(g, x):
        np.multiply(g.data, np.cos(x.data), out=buffer)
        return tg.Tensor(buffer)

    with pytest.raises(GradientError, match="shares memory with that of a later sweep"):
        check_grad(unary(sine, rule), X, order=1)

    def twice(g):
        buffer[...] = g.data
        return tg.Tensor(buffer)

    added = tg.op(lambda a, b: a + b)
    added.vjp("a", "b")(twice)
    with pytest.raises(GradientError, match="shares memory with"):
        check_grad(added, X, Y, order=1)


def test_what_is_wrong_for_non_contiguous_inputs_alone_is_caught():
    def memory_order(x):
        return np.sin(x.ravel(order="K").reshape(x.shape))

    with pytest.raises(GradientError, match="the value is another one for non-contiguous inputs"):
        check_grad(unary(memory_order, lambda g, x: g * tg.cos(x)), X)

    def rule(g, x):
        return g * tg.Tensor(np.cos(np.ascontiguousarray(x.data.ravel(order="K")).reshape(x.shape)))

    with pytest.raises(GradientError, match="the gradient of argument 0 is another one for non-contiguous inputs"):
        check_grad(unary(sine, rule), X)

    def cotangent(g, x):
        return tg.Tensor(g.data.ravel(order="K").reshape(g.shape)) * tg.cos(x)

    with pytest.raises(GradientError, match="non-contiguous inputs"):
        check_grad(unary(sine, cotangent), X)


def test_what_is_wrong_for_float32_alone_is_caught():
    def f(x):
        return tg.sin(x) if x.dtype == tg.float64 else tg.sin(x) * 2

    with pytest.raises(GradientError, match="the value is another one for float32 inputs"):
        check_grad(f, X)

    def rule(g, x):
        return g * tg.cos(x) * (1 if x.dtype == tg.float64 else 3)

    with pytest.raises(GradientError, match="the gradient of argument 0 is another one for float32 inputs"):
        check_grad(unary(sine, rule), X)


def test_what_is_not_deterministic_is_caught():
    rng = tg.Generator(0)
    with pytest.raises(GradientError, match="the value is another one the second time"):
        check_grad(lambda x: x * tg.rand(3, 3, rng=rng, dtype="float64"), X)


# -------------------------------------------------------------------------------------- what messages say


def test_the_worst_element_of_a_large_input_is_found_by_halving():
    mask = np.zeros((30, 20))
    mask[17, 3] = 1e-2
    wrong = unary(sine, lambda g, x: g * (tg.cos(x) + tg.tensor(mask).to(x.dtype)))
    with pytest.raises(GradientError, match=r"direction \d, element \(17, 3\): the vjp says"):
        check_grad(wrong, numbers(0, (30, 20)))


def test_inputs_are_called_by_their_names_and_the_step_is_named():
    f = product(lambda g, b: g * b, lambda g, a: -g * a)
    with pytest.raises(GradientError, match=r"^gradient of argument weight, .*\(complex step 1e-30; allowed"):
        check_grad(f, X, Y, names=["x", "weight"])
    with pytest.raises(GradientError, match=r"^gradient of argument weight, .*\(differences from step 0\.01"):
        check_grad(f, X, Y, names=["x", "weight"], analytic=False)
    late = product(lambda g, b: g * b.detach(), lambda g, a: g * a)
    with pytest.raises(GradientError, match=r"^∂gradient of argument weight, "):
        check_grad(late, X, Y, names=["x", "weight"])
    late = product(lambda g, b: tg.Tensor(g.data) * b, lambda g, a: g * a)
    with pytest.raises(GradientError, match=r"^∂gradient of the cotangent, "):
        check_grad(late, X, Y)


def test_a_function_that_is_said_to_be_analytic_must_be():
    check_grad(tg.exp, X, analytic=True)
    check_grad(tg.exp, X, analytic=False)
    check_grad(tg.abs, X)
    with pytest.raises(GradientError, match="f is declared analytic; along a random direction, differences give"):
        check_grad(tg.abs, X, analytic=True)


# ------------------------------------------------------------------------------------- symmetric Hessians


def test_hessians_that_are_not_symmetric_are_caught():
    # The tolerance hides both wrong derivatives from the numbers, but not that they contradict each other.
    wrong = product(lambda g, b: g * (b + 1e-3 * b.detach()), lambda g, a: g * (a + 2e-3 * a.detach()))
    check_grad(wrong, X, Y, order=1, rtol=0.1)
    with pytest.raises(GradientError, match="the Hessian H is not symmetric: ⟨v, H u⟩ = .*, but ⟨u, H v⟩ = "):
        check_grad(product(lambda g, b: g * b * 1.001, lambda g, a: g * a), X, Y, rtol=0.1)
    check_grad(product(lambda g, b: g * b, lambda g, a: g * a), X, Y, rtol=0.1)


def test_one_tensor_passed_twice_gets_both_gradients():
    check_grad(lambda x, y: x * y, X, Y)
    wrong = product(lambda g, a, b: g * b * (2 if a is b else 1), lambda g, a: g * a)
    with pytest.raises(GradientError, match="one tensor passed as argument 0 and as argument 1 must get the sum"):
        check_grad(wrong, X, Y, order=1)


# ---------------------------------------------------------------------------------- what cannot be judged


@pytest.mark.parametrize(
    "f, x",
    [
        (lambda x: tg.where(x > 1, x, x + 1), 1.0),  # a jump
        (lambda x: 1 / x, 0.0),
        (tg.log, 0.0),
        (lambda x: tg.sqrt(tg.abs(x)), 0.0),
    ],
)
def test_points_that_cannot_be_judged_are_named(f, x):
    with np.errstate(all="ignore"), pytest.raises(GradientError):
        check_grad(f, np.array([0.5, x]), order=1)
    with np.errstate(all="ignore"), pytest.raises(GradientError, match="cannot be judged|is not finite|the numbers"):
        check_grad(lambda x: f(x).detach() + 0 * x, np.array([0.5, x]), order=1)


def test_a_wrong_gradient_at_a_kink_does_not_hide_behind_the_noise():
    # The two one-sided derivatives of relu at 0 are 0 and 1; a vjp that says 7 is wrong in any case.
    f = unary(lambda x: np.maximum(x, 0), lambda g, x: g * tg.where(x == 0, 7.0, (x > 0).to(g.dtype)))
    with pytest.raises(GradientError):
        check_grad(f, np.array([0.0, 1.0]), order=1)
    g = unary(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda g: g * 1e6)
    with pytest.raises(GradientError):
        check_grad(g, np.array([0.0, 1.0]), order=1)


def test_what_check_grad_refuses():
    with pytest.raises(ValueError, match="none of the inputs is floating"):
        check_grad(lambda i: i, np.array([1, 2]))
    with pytest.raises(ValueError, match="order ≥ 1, got 0"):
        check_grad(tg.exp, X, order=0)
    with pytest.raises(TypeError, match="f returned ndarray, expected a Tensor"):
        check_grad(lambda x: x.detach().numpy(), X)
    with pytest.raises(ValueError, match="f's own error"):
        check_grad(lambda x: (_ for _ in ()).throw(ValueError("f's own error")), X)


def test_check_grad_returns_nothing_leaves_no_gradient_and_keeps_its_inputs():
    x = tg.tensor(X, requires_grad=True)
    assert check_grad(tg.exp, x) is None
    assert x.grad is None and np.array_equal(x.detach().numpy(), X) and tg.is_grad_enabled()


def test_gradient_error_is_an_assertion():
    assert issubclass(GradientError, AssertionError)


# ------------------------------------------------------------------------------------------- adjoints


def test_adjoint_pairs_pass():
    a = tg.tensor(numbers(0, (4, 3)))
    assert check_adjoint(lambda x: a @ x, lambda y: a.mT @ y, numbers(1, (3,)), numbers(2, (4,))) is None
    check_adjoint(lambda x: x.cumsum(0), lambda y: y.flip(0).cumsum(0).flip(0), tg.tensor(X), tg.tensor(Y))
    check_adjoint(lambda x: x.sum(), lambda y: y.expand(3, 3), X, np.array(0.7))
    check_adjoint(lambda x: x * 0, lambda y: y * 0, X, Y)


@pytest.mark.parametrize(
    "A, At",
    [
        (lambda x: x.cumsum(0), lambda y: y.cumsum(0)),
        (lambda x: 2 * x, lambda y: -2 * y),
        (lambda x: x.roll(1, 0), lambda y: y.roll(1, 0)),
        (lambda x: x * 1.0001, lambda y: y),
        (lambda x: x, lambda y: y * float("nan")),
    ],
)
def test_pairs_that_are_not_adjoint_are_caught(A, At):
    with pytest.raises(GradientError, match="⟨A x, y⟩ = .*, but ⟨x, Aᵀ y⟩ = "):
        check_adjoint(A, At, X, Y)


def test_adjoints_of_another_shape_are_caught():
    with pytest.raises(GradientError, match=r"A x has shape \(3,\) and y \(3, 3\)"):
        check_adjoint(lambda x: x.sum(0), lambda y: y, X, Y)
    with pytest.raises(GradientError, match=r"Aᵀ y has \(3,\) and x \(3, 3\)"):
        check_adjoint(lambda x: x, lambda y: y.sum(0), X, Y)
