"""check_op: right ops pass, and each bug seeded here is caught by the check that it is meant for."""

import re
from itertools import product

import numpy as np
import pytest

import tinygen as tg
from tinygen.backend import array_module
from tinygen.testing import (
    Case,
    GradientError,
    booleans,
    check_op,
    checks,
    declare,
    derived,
    distinct,
    integers,
    positive,
    real,
    strict_cupy,
)


def op(forward, options=None, **rules):
    """An op with these vjps."""
    declared = tg.op(forward, **(options or {}))
    for name, rule in rules.items():
        declared.vjp(name)(rule)
    return declared


def caught(message, declared, *cases, **known):
    with pytest.raises(GradientError) as error:
        check_op(declared, *cases, **known)
    assert re.search(message, str(error.value)), str(error.value)


def sine(x):
    return array_module(x).sin(x)


def product_of(a, b):
    return a * b


BROADCAST = {"broadcast": True}
X, PLANES = Case(real(2, 3)), Case(real(1, 2, 2, 3))
PAIR = Case(real(2, 3), real(3))

# ------------------------------------------------------------------------------------------ what is right


def test_right_ops_pass():
    right_sine = op(sine, x=lambda g, x: g * tg.cos(x))
    assert check_op(right_sine, X, PLANES, Case(real()), Case(real(0, 2)), analytic=True, value=np.sin) is None
    times = op(product_of, BROADCAST, a=lambda g, b: g * b, b=lambda g, a: g * a)
    check_op(times, PAIR, Case(real(2), real(2)), Case(2.0, real(3)), linear="a b", analytic=True, value=np.multiply)


def test_an_op_of_a_sequence_a_constant_and_a_shortcut():
    @tg.op(sequence="xs")
    def weighted(xs, weights):
        return sum(w * x for w, x in zip(weights, xs))

    weighted.vjp("xs")(lambda g, i, weights: g * weights[i])
    check_op(weighted, Case([real(3), real(3)], (2.0, -1.0)), constants="weights", linear="xs", analytic=True)

    @tg.op
    def from_sine(x, s):
        return x * s

    from_sine.vjp("x")(lambda g, x, s: g * (tg.sin(x) + x * tg.cos(x)))
    check_op(from_sine, Case(real(4), derived(lambda x: sine(x))), analytic=True)
    caught(r"vjp, x, float64, contiguous, order 1", from_sine, Case(real(4), real(4)), constants="s")


def test_kinks_ties_and_masks():
    check_op(tg.abs, Case(real(2, 3, kinks=[0])), value=np.abs)
    check_op(tg.maximum, Case(distinct(3), np.array([0.05, -0.05, 0.35])), value=np.maximum)
    check_op(tg.where, Case(booleans(2, 3), real(3), 0.5), Case(booleans(2), 0.5, real(2)),
             constants="condition", linear="input other", value=np.where)  # fmt: skip
    check_op(tg.eq, Case(integers(5), integers(5)), differentiable=False, value=np.equal)


def test_plain_functions_of_tensors_are_checked_too():
    def distance(x, y, p=2.0):
        return ((x - y).abs() ** p).sum() ** (1 / p)

    check_op(distance, Case(positive(3), real(3, low=-1, high=-0.1)), Case(positive(2), -positive(2).draw(RNG), p=3.0))


RNG = np.random.default_rng(0)


# ---------------------------------------------------------------------------------- wrong first derivatives


@pytest.mark.parametrize(
    "rule, message",
    [
        (lambda g, x: -g * tg.cos(x), r"Every sign is wrong"),
        (lambda g, x: g * tg.cos(x) / 2, r"A factor of 2 is missing"),
        (lambda g, x: g * tg.sin(x), r"the vjp says .*, the numbers .* \(complex step 1e-30"),
        (lambda g, x: tg.cos(x), r"the vjp says"),
        (lambda g, x: g * 0, r"The vjp gives zeros"),
        (lambda g, x: (g * tg.cos(x)).sum() + 0 * x, r"the vjp says"),
        (lambda g, x: (g * tg.cos(x)).detach().data, r"must return a Tensor"),
        (lambda g, x: g * tg.cos(x).float(), r"the vjp says|float"),
    ],
)
def test_wrong_vjps_are_caught(rule, message):
    caught(rf"^sine, vjp, x, float64, contiguous, order 1, case 1 of 2, Case\(real \(2, 3\)\): .*{message}",
           op(sine, x=rule), X, PLANES)  # fmt: skip


def test_the_argument_and_the_case_are_named():
    wrong = op(product_of, BROADCAST, a=lambda g, b: g * b, b=lambda g, a: g * a * (2 if a.ndim == 4 else 1))
    check_op(wrong, PAIR)
    caught(r"^product_of, vjp, b, float64, contiguous, order 1, case 2 of 2, .*gradient of argument b, of shape \(3,\)",
           wrong, PAIR, Case(real(1, 2, 2, 3), real(3)))  # fmt: skip


def test_a_missing_sum_over_repetitions_is_named():
    unsummed = op(product_of, a=lambda g, b: g * b, b=lambda g, a: g * a)
    check_op(unsummed, Case(real(2, 3), real(2, 3)))
    caught(r"argument was broadcast, so its gradient is a sum over the repetitions \(unbroadcast\)", unsummed, PAIR)
    first = op(product_of, a=lambda g, b: g * b, b=lambda g, a: (g * a)[0])
    caught(r"The sum over the repetitions is missing \(unbroadcast\).*one summand of 2", first, PAIR)
    mean = op(product_of, a=lambda g, b: g * b, b=lambda g, a: (g * a).mean(0))
    caught(r"A factor of 2 is missing, and the argument is repeated 2 times .* not the mean", mean, PAIR)


def test_a_transposed_gradient_is_named():
    wrong = op(lambda x: x * 1, x=lambda g: g.mT)
    caught(r"It is transposed", wrong, Case(real(3, 3)))


# -------------------------------------------------------------------------------- wrong second derivatives


def test_second_derivatives_that_are_lost_are_caught():
    raw = op(sine, x=lambda g, x: g * tg.Tensor(array_module(x.data).cos(x.data)))
    caught(r"vjp, x, float64, contiguous, order 2, .*gradient of argument x, .*The vjp gives zeros", raw, X)
    constant = op(sine, x=lambda g, x: tg.Tensor(g.data) * tg.cos(x))
    caught(r"order 2, .*gradient of argument cotangent, ", constant, X)


def test_mixed_second_derivatives_are_checked():
    wrong = op(product_of, BROADCAST, a=lambda g, b: g * b.detach(), b=lambda g, a: g * a)
    caught(r"^product_of, vjp, a, float64, contiguous, order 2, .*gradient of argument b", wrong, PAIR)


# ------------------------------------------------------------------------------------- dtypes and layouts


def test_dtypes_that_are_lost_are_caught():
    grows = op(lambda x: array_module(x).sin(x) * np.float64(1.0), x=lambda g, x: (g * tg.cos(x)).to(x.dtype))
    caught(r"f of float32 inputs is float64", grows, X)
    half = op(lambda x: x.astype(np.promote_types(x.dtype, "float32")) * 2, x=lambda g, x: (g * 2).to(x.dtype))
    caught(r"vjp, x, float16, contiguous, order 1, .*the value is float32, expected float16", half, X)
    check_op(half, X, dtypes=["float64", "float32"])
    check_op(half, X, same_dtype=False)


def test_what_is_wrong_in_float16_alone_is_caught():
    overflows = op(lambda x: (x * 300) ** 2 / 90000, x=lambda g, x: g * 2 * x)
    with np.errstate(over="ignore", invalid="ignore"):
        caught(r"vjp, x, float16, .* is (inf|nan); from the same numbers in float64, contiguous, it is", overflows, X)


def test_what_depends_on_the_layout_is_caught():
    def memory_order(x):
        return sine(x.ravel(order="K").reshape(x.shape))

    caught("non-contiguous inputs", op(memory_order, x=lambda g, x: g * tg.cos(x)), X)

    def forgets_channels_last(x):
        channels_last = x.ndim == 4 and x.strides[3] == x.shape[1] * x.itemsize
        return sine(x) + 0.01 * channels_last

    wrong = op(forgets_channels_last, x=lambda g, x: g * tg.cos(x))
    check_op(wrong, X)
    caught(r"vjp, x, float64, channels last, order 1, .*the value at element", wrong, PLANES)

    def backwards(g, x):
        return g * tg.cos(x) * (1 if x.data.strides[-1] >= 0 else 2)

    caught(r"vjp, x, float64, reversed, order 1, .*the gradient of x at element", op(sine, x=backwards), X)

    def stride_0(g, x):
        return g * tg.cos(x) * (1 if 0 not in x.data.strides else 2)

    caught(r"vjp, x, float64, broadcast, order 1", op(sine, x=stride_0), X)


def test_an_input_that_is_written_to_is_caught():
    def in_place(x):
        x *= 2
        return x.copy()

    caught(r"wrote to (its argument )?x", op(in_place, x=lambda g: 2 * g), X)

    def in_place_in_float32(x):
        y = x * 2
        if x.dtype != "float64" and 0 not in x.strides:
            x[...] = 0
        return y

    caught(r"wrote to (its argument )?x|another one", op(in_place_in_float32, x=lambda g: 2 * g), X)


# ------------------------------------------------------------------------------------- what else is declared


def test_an_argument_without_a_rule_is_named():
    half = op(product_of, a=lambda g, b: g * b)
    caught(r"^product_of has no vjp of its argument 'b'; write one, or declare constants='b'$", half, PAIR)
    caught(r"^b is declared constant, but the result depends on it$|constant, b, case 1 of 1, .*depends on it",
           half, Case(real(3), real(3)), constants="b")  # fmt: skip


def test_what_is_missing_is_listed():
    times = op(product_of, a=lambda g, b: g * b, b=lambda g, a: g * a)
    assert declare(times).problems() == ["product_of has no cases; declare some with Case(...)"]
    assert declare(times, Case(real(2), 2.0)).problems() == ["no case of product_of passes floating numbers as 'b'"]
    assert declare(times, PAIR, constants="b").problems() == ["product_of has a vjp of 'b', which is declared constant"]
    assert declare(times, PAIR, constants="c").problems() == ["product_of has no argument 'c'; it takes a, b"]
    assert declare(times, PAIR, linear=["d"]).problems() == ["product_of has no argument 'd'; it takes a, b"]
    assert declare(times, PAIR, differentiable=False).problems() == [
        "product_of is declared not differentiable, but has a vjp of 'a', 'b'",
        "product_of is not differentiable, so its values need a definition: value=...",
    ]


def test_wrong_values_are_caught():
    right_sine = op(sine, x=lambda g, x: g * tg.cos(x))
    caught(r"^sine, value, float64, contiguous, .*the value is .*, by its definition", right_sine, X, value=np.cos)
    row = lambda x: np.sin(x)[0]
    caught(r"the value has shape \(2, 3\), by its definition \(3,\)", right_sine, X, value=row)
    single = op(lambda a, b: a == b if a.dtype != "float32" else a != b)
    caught(r"value, float32, contiguous", single, Case(real(3), real(3)), differentiable=False, value=np.equal)
    caught(r"the value is int64, by its definition bool", op(lambda a, b: (a == b) * 1), Case(integers(3), integers(3)),
           differentiable=False, value=np.equal)  # fmt: skip


def test_what_is_not_linear_is_caught():
    caught(r"adjoint, x, .*(declared linear in x, but is not|⟨A x, y⟩)", op(sine, x=lambda g, x: g * tg.cos(x)),
           X, linear="x")  # fmt: skip


def test_a_wrong_subgradient_is_caught():
    def absolute(x):
        return array_module(x).abs(x)

    wrong = op(absolute, x=lambda g, x: g * tg.where(x == 0, 3.0, tg.sign(x)))
    check_op(wrong, Case(real(3, away=[0])))
    caught(
        r"kinks, x, .*at the kink x = 0, the vjp says .*, the one-sided derivatives", wrong, Case(real(3, kinks=[0]))
    )
    infinite = op(absolute, x=lambda g, x: g * tg.where(x == 0, float("nan"), tg.sign(x)))
    caught(r"at the kink x = 0, the vjp says nan", infinite, Case(real(3, kinks=[0])))


def test_one_tensor_passed_twice_is_checked():
    half = lambda g, a, b: g * b if a is not b else g * b / 2
    wrong = op(product_of, BROADCAST, a=half, b=lambda g, a: g * a)
    check_op(wrong, PAIR)
    caught(r"repeated, .*one tensor passed as argument a and as argument b must get the sum of both gradients", wrong,
           Case(real(2), real(2)))  # fmt: skip


@pytest.mark.cpu_only("makes the stand-in the default itself")
def test_on_a_gpu_contents_are_not_to_be_looked_at():
    def looks(x):
        return array_module(x).sin(x) * (1 if x.size == 0 or x.max() < 100 else 2)

    curious = op(looks, x=lambda g, x: g * tg.cos(x))
    check_op(curious, X)
    with strict_cupy(default=True):
        check_op(op(sine, x=lambda g, x: g * tg.cos(x)), X)
        caught(r"array contents were looked at by the host", curious, X)
        caught(r"numpy|host", op(lambda x: np.sin(x), x=lambda g, x: g * tg.cos(x)), X)


# ------------------------------------------------------------------------------------------- the list itself


def test_the_checks_are_all_combinations():
    listed = checks(declare(op(product_of, BROADCAST, a=lambda g, b: g * b, b=lambda g, a: g * a), PAIR,
                            Case(real(1, 2, 2, 2), real(2)), linear="a", value=np.multiply))  # fmt: skip
    vjps = [(c.argument, c.dtype, c.layout, c.order) for c in listed if c.what == "vjp"]
    layouts = ["contiguous", "transposed", "channels last", "gaps", "reversed", "broadcast"]
    assert sorted(vjps) == sorted(product("ab", ["float64", "float32", "float16"], layouts, [1, 2]))
    assert [str(c) for c in listed if c.what != "vjp"] == [
        "product_of, value, float64, contiguous", "product_of, adjoint, a"
    ]  # fmt: skip
    assert len({str(c) for c in listed}) == len(listed)


def test_layouts_are_those_that_the_arrays_can_have():
    names = {
        c.layout
        for c in checks(
            declare(
                op(sine, x=lambda g: g),
                Case(
                    real(2),
                ),
            )
        )
    }
    assert names == {"contiguous", "gaps", "reversed", "broadcast"}
    assert {c.layout for c in checks(declare(op(sine, x=lambda g: g), Case(real())))} == {"contiguous"}


def test_an_error_of_the_op_names_the_case():
    caught(r"^<lambda>, vjp, x, .* case 1 of 1, Case\(real \(2, 3\)\): .*ValueError",
           op(lambda x: x.reshape(5), x=lambda g: g), X)  # fmt: skip
