"""Declaring an op: every style of vjp, what is kept for it, how calls bind, and how mistakes are named."""

import functools

import numpy as np
import pytest

import tinygen as tg
from tinygen import backend
from tinygen.op import Op, registry
from tinygen_tests.judge import shares_memory

RNG = np.random.default_rng(0)


def leaf(*shape):
    return tg.tensor(RNG.uniform(0.5, 2, shape), requires_grad=True)


# ------------------------------------------------------------------------------------- styles of vjp


def product(style):
    """a·b, its vjps written in one of the styles of op.py's docstring."""

    @tg.op
    def product(a, b):
        return a * b

    if style == "names":
        product.vjp("a")(lambda g, b: g * b)
        product.vjp("b")(lambda g, a: g * a)
    elif style == "names in any order":
        product.vjp("a")(lambda g, b, a: g * b + 0 * a)
        product.vjp("b")(lambda g, b, a: g * a + 0 * b)
    elif style == "the result among names":
        product.vjp("a")(lambda g, y, a: g * y / a)
        product.vjp("b")(lambda g, b, result: g * result / b)
    elif style == "the full form":
        product.vjp("a")(lambda g, y, a, b: g * b)
        product.vjp("b")(lambda g, y, a, b: g * a)
    elif style == "the full form in other names":
        product.vjp("a")(lambda grad, out, left, right: grad * right)
        product.vjp("b")(lambda grad, out, left, right: grad * left)
    return product


@pytest.mark.parametrize(
    "style", ["names", "names in any order", "the result among names", "the full form", "the full form in other names"]
)
def test_every_style_of_vjp_is_differentiable_twice(style):
    f = product(style)
    a, b = leaf(3), leaf(3)
    da, db = tg.grad(f(a, b), [a, b], tg.ones(3, dtype="float64"))
    np.testing.assert_allclose([da.numpy(), db.numpy()], [b.detach().numpy(), a.detach().numpy()], rtol=1e-15)
    tg.testing.check_grad(f, a, b)
    tg.testing.check_grad(lambda x: f(x, x), a)


def test_shapes_are_kept_without_the_numbers():
    @tg.op
    def total(x):
        return x.sum()

    @total.vjp("x")
    def _(g, x_shape):
        return g.broadcast_to(x_shape) * 1

    x = leaf(2, 3)
    y = total(x)
    assert list(y.grad_fn.saved.values()) == [(2, 3)]
    tg.testing.check_grad(total, x)


def test_only_what_a_vjp_names_is_kept():
    f = product("names")
    a, b = leaf(3), leaf(3)
    assert list(f(a, b.detach()).grad_fn.saved) == [1]
    assert list(f(a.detach(), b).grad_fn.saved) == [0]
    assert sorted(f(a, b).grad_fn.saved) == [0, 1]
    assert (a + b).grad_fn.saved == {}


def test_aux_carries_constants_to_the_vjp():
    @tg.op(aux=True)
    def positive(x):
        mask = x > 0
        return x * mask, mask

    @positive.vjp("x")
    def _(g, aux):
        return g * tg.Tensor(aux)

    x = tg.tensor([-1.0, 2.0], requires_grad=True)
    y = positive(x)
    assert y.detach().tolist() == [0, 2] and isinstance(y, tg.Tensor)
    assert tg.grad(y.sum(), x)[0].tolist() == [0, 1]
    tg.testing.check_grad(positive, np.array([-1.0, 2.0, 0.7]))


def test_aux_and_the_result_are_told_apart():
    @tg.op(aux=True)
    def root(x):
        return x**0.5, x.shape

    @root.vjp("x")
    def _(g, y, aux):
        assert aux == y.shape
        return g / (2 * y)

    tg.testing.check_grad(root, leaf(2, 3))


def test_an_op_of_a_sequence_takes_i():
    @tg.op(sequence="xs")
    def weighted(xs, scale):
        return functools.reduce(lambda a, b: a + b, [scale**k * x for k, x in enumerate(xs)])

    @weighted.vjp("xs")
    def _(g, i, scale):
        return scale**i * g

    xs = [leaf(2), leaf(2), leaf(2)]
    y = weighted(xs, 3)
    assert [g.tolist() for g in tg.grad(y.sum(), xs)] == [[1, 1], [3, 3], [9, 9]]
    assert [g.tolist() for g in tg.grad(weighted((xs[0], xs[0]), scale=2).sum(), xs[:1])] == [[3, 3]]
    tg.testing.check_grad(lambda a, b: weighted([a, b, a], 2), leaf(2), leaf(2))
    assert not weighted([x.detach() for x in xs], 3).requires_grad


def test_a_sequence_keeps_names_shapes_and_result():
    @tg.op(sequence="xs")
    def product_of(xs):
        return functools.reduce(lambda a, b: a * b, xs)

    @product_of.vjp("xs")
    def _(g, i, y, xs, xs_shape):
        assert xs_shape[i] == xs[i].shape
        return g * y / xs[i]

    tg.testing.check_grad(lambda a, b, c: product_of([a, b, c]), leaf(2), leaf(2), leaf(2))


def test_a_broadcast_op_gets_dtypes_promoted_and_gradients_summed_back():
    @tg.op(broadcast=True)
    def hypot(a, b):
        assert a.dtype == b.dtype
        return (a * a + b * b) ** 0.5

    @hypot.vjp("a")
    def _(g, y, a):
        return g * a / y

    @hypot.vjp("b")
    def _(g, y, b):
        return g * b / y

    a, b = leaf(2, 1), leaf(3)
    tg.testing.check_grad(hypot, a, b)
    low = tg.ones(2, 1, requires_grad=True)
    da, db = tg.grad(hypot(low, b).sum(), [low, b])
    assert (da.shape, da.dtype, db.shape, db.dtype) == ((2, 1), tg.float32, (3,), tg.float64)


def test_an_op_without_vjps_is_not_differentiable():
    @tg.op
    def steps(x):
        return x // 1

    assert not steps(leaf(3)).requires_grad


def test_integer_results_never_require_grad():
    @tg.op
    def rounded(x):
        return x.astype("int64")

    rounded.vjp("x")(lambda g: g)
    assert not rounded(leaf(3)).requires_grad


def test_unused_arguments_need_no_vjp():
    f = product("names")
    a = leaf(3)
    assert f(a, 2.0).requires_grad and f(a, tg.ones(3).data).requires_grad
    assert not f(a.detach(), 2.0).requires_grad
    with tg.no_grad():
        assert not f(a, a).requires_grad


def test_a_vjp_may_be_declared_again_after_use():
    @tg.op
    def double(x):
        return 2 * x

    double.vjp("x")(lambda g: g)
    x = leaf(2)
    assert tg.grad(double(x).sum(), x)[0].tolist() == [1, 1]
    double.vjp("x")(lambda g: 2 * g)
    assert tg.grad(double(x).sum(), x)[0].tolist() == [2, 2]


def test_user_ops_are_registered_with_their_arguments():
    product("names")
    declared = registry[f"{__name__}.product"]
    assert isinstance(declared, Op) and repr(declared) == "<op product(a, b)>"
    assert declared.required == 2


def test_an_op_keeps_its_name_docstring_and_declaration():
    @tg.op
    def thrice(x):
        """3x."""
        return 3 * x

    assert (thrice.__name__, thrice.__doc__, thrice.op.name) == ("thrice", "3x.", "thrice")


# -------------------------------------------------------------------------------------- calling an op


@tg.op
def scaled(x, factor, shift=0.0):
    return factor * x + shift


scaled.vjp("x")(lambda g, factor: g * factor)


def test_arguments_bind_by_position_name_and_default():
    x = tg.tensor([1.0], requires_grad=True)
    for y in (
        scaled(x, 2),
        scaled(x, 2, 0.0),
        scaled(x, factor=2),
        scaled(x=x, factor=2),
        scaled(factor=2, x=x, shift=0.0),
    ):
        assert y.item() == 2 and tg.grad(y, x)[0].item() == 2
    assert scaled(x, 2, shift=1.0).item() == 3


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: scaled(x), "scaled\\(\\) misses the argument 'factor'"),
        (lambda x: scaled(), "scaled\\(\\) misses the argument 'x'"),
        (lambda x: scaled(x, 1, 2, 3), "scaled\\(\\) takes 3 arguments \\(x, factor, shift\\), got 4"),
        (lambda x: scaled(x, 1, offset=2), "'offset' is unknown; it takes x, factor, shift"),
        (lambda x: scaled(x, 1, x=x), "argument 'x' is given twice"),
    ],
)
def test_calls_that_do_not_bind_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call(tg.ones(1))


def test_library_errors_say_what_was_called():
    @tg.op
    def joined(a, b, axis):
        return backend.array_module(a).concatenate([a, b], axis=axis)

    with pytest.raises(
        ValueError, match=r"joined\(a: float32 \(2,\) on \S+, b: float64 \(2, 2\) on \S+, axis=0\): "
    ) as caught:
        joined(tg.ones(2), tg.ones(2, 2, dtype="float64"), 0)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(IndexError, match="joined.*axis"):
        joined(tg.ones(2), tg.ones(2), 5)


def test_errors_that_name_the_op_already_are_left_as_they_are():
    @tg.op
    def strict(x):
        raise ValueError("strict: expected something else")

    with pytest.raises(ValueError, match="^strict: expected something else$") as caught:
        strict(tg.ones(2))
    assert caught.value.__cause__ is None


def test_an_attribute_error_of_the_forward_is_not_disguised():
    @tg.op
    def broken(x):
        return x.nonsense()

    with pytest.raises(AttributeError, match="nonsense"):
        broken(tg.ones(2))


def test_results_are_arrays_also_where_numpy_gives_a_number():
    y = scaled(tg.tensor(2.0), 3)
    assert backend.is_array(y.data) and y.shape == ()

    @tg.op
    def first(x):
        return x[0]

    assert backend.is_array(first(tg.ones(2)).data)


def test_no_tensor_at_all_is_an_error():
    with pytest.raises(TypeError, match="expected at least one Tensor"):
        scaled(2.0, 3.0)
    with pytest.raises(TypeError, match=r"scaled\(x=\[1.0\].*expected a Tensor; make one with tg.tensor"):
        scaled([1.0], 3.0)


# ------------------------------------------------------------------------------------------ mistakes


def test_a_tracked_argument_without_a_vjp_is_named():
    f = tg.op(lambda a, b: a * b)
    f.vjp("a")(lambda g, b: g * b)
    with pytest.raises(TypeError, match=r"has no derivative with respect to 'b', which requires grad; pass b.detach"):
        f(leaf(2), leaf(2))
    assert f(leaf(2), leaf(2).detach()).requires_grad
    with tg.no_grad():
        f(leaf(2), leaf(2))


def test_a_tracked_argument_beside_a_sequence_is_named():
    @tg.op(sequence="xs")
    def summed(xs, scale):
        return sum(xs) * scale

    summed.vjp("xs")(lambda g, i, scale: g * scale)
    for xs in ([leaf(2)], [leaf(2).detach()]):
        with pytest.raises(TypeError, match="summed.* no derivative with respect to 'scale'"):
            summed(xs, leaf(1))


@pytest.mark.parametrize(
    "result, error, message",
    [
        (lambda g: None, TypeError, "a vjp of faulty returned NoneType; it must return a Tensor"),
        (lambda g: g.data, TypeError, "a vjp of faulty returned ndarray; it must return a Tensor"),
        (lambda g: 1.0, TypeError, "a vjp of faulty returned float"),
        (lambda g: g.sum(), RuntimeError, r"gradient of shape \(\) and dtype float64 for an argument of shape \(3,\)"),
        (lambda g: g.unsqueeze(0), RuntimeError, r"gradient of shape \(1, 3\)"),
        (lambda g: g.to(tg.float32), RuntimeError, r"dtype float32 for an argument of shape \(3,\) and dtype float64"),
    ],
)
def test_what_a_vjp_must_not_return_is_named(result, error, message):
    @tg.op
    def faulty(x):
        return x * 2

    faulty.vjp("x")(result)
    x = leaf(3)
    for y in (faulty(x), faulty(x * 1)):
        with pytest.raises(error, match=message):
            y.sum().backward()
        assert tg.is_grad_enabled()


def test_a_vjp_of_a_broadcast_op_must_return_a_shape_that_can_be_summed_back():
    @tg.op(broadcast=True)
    def faulty(a, b):
        return a + b

    faulty.vjp("a", "b")(lambda g: g[:1, :2])
    with pytest.raises(ValueError, match="does not broadcast"):
        faulty(leaf(2, 3), leaf(3)).sum().backward()


@pytest.mark.parametrize(
    "declare, message",
    [
        (lambda f: f.vjp("c"), r"two.vjp\('c'\): two has the arguments a, b"),
        (lambda f: f.vjp("a")(lambda g, p, q, r, s: g), "a vjp of two takes g, then any of a, b, NAME_shape"),
        (lambda f: f.vjp("a")(lambda g, p, q: g), r"one more name for the result; got \(g, p, q\)"),
        (lambda f: f.vjp("a")(lambda g, c_shape, y: g), "a vjp of two takes g"),
        (lambda f: f.vjp("a")(lambda g, a, k=2: g), "takes no defaults"),
    ],
)
def test_vjps_whose_parameters_cannot_be_matched_are_refused(declare, message):
    @tg.op
    def two(a, b):
        return a + b

    with pytest.raises(TypeError, match=message):
        declare(two)


def test_vjps_of_a_sequence_are_checked_too():
    @tg.op(sequence="xs")
    def many(xs, k):
        return xs[0] * k

    with pytest.raises(TypeError, match="takes g, then i"):
        many.vjp("xs")(lambda g, k: g * k)
    with pytest.raises(TypeError, match="differentiated in 'xs' alone"):
        many.vjp("k")


def variadic(*xs):
    return xs[0]


def keyword_only(x, *, k=1):
    return x * k


def keywords(x, **rest):
    return x


@pytest.mark.parametrize("forward", [variadic, keyword_only, keywords], ids=lambda f: f.__name__)
def test_forwards_whose_arguments_an_op_could_not_see_are_refused(forward):
    with pytest.raises(TypeError, match=f"{forward.__name__} may have neither"):
        tg.op(forward)


def test_declarations_that_contradict_themselves_are_refused():
    with pytest.raises(TypeError, match="expected a Python function"):
        tg.op(np.exp)
    with pytest.raises(TypeError, match="no argument 'ys'"):
        tg.op(sequence="ys")(lambda xs: xs[0])
    with pytest.raises(TypeError, match="cannot have both"):
        tg.op(sequence="xs", broadcast=True)(lambda xs, k: xs[0])


# --------------------------------------------------------------------------------- arrays and memory


def test_a_result_that_is_an_input_or_a_view_of_it_shares_no_gradient():
    @tg.op
    def same(x):
        return x

    same.vjp("x")(lambda g: g)
    x = leaf(3)
    g = tg.ones(3, dtype="float64")
    (d,) = tg.grad(same(same(x)), x, g)
    assert not shares_memory(d.data, g.data)


def test_saved_arrays_that_a_vjp_returns_are_copied():
    @tg.op(aux=True)
    def linear(x):
        weight = tg.tensor([1.0, 2.0, 3.0], dtype="float64").data
        return (weight * x).sum(), weight

    linear.vjp("x")(lambda g, aux: tg.Tensor(aux))
    x = leaf(3)
    y = linear(x)
    (a,) = tg.grad(y, x, retain_graph=True)
    (b,) = tg.grad(y, x)
    assert a.tolist() == [1, 2, 3] and not shares_memory(a.data, b.data)

    @tg.op(sequence="xs")
    def dot(xs):
        return (xs[0] * xs[1]).sum()

    dot.vjp("xs")(lambda g, i, xs: xs[1 - i])
    xs = [leaf(3), leaf(3)]
    da, db = tg.grad(dot(xs), xs)
    assert not shares_memory(da.data, xs[1].data) and not shares_memory(db.data, xs[0].data)


def test_foreign_arrays_are_refused():
    class Foreign:
        pass

    with pytest.raises(TypeError, match="scaled"):
        scaled(Foreign(), 2.0)
    assert not backend.is_array(Foreign())
