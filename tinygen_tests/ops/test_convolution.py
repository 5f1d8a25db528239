"""Convolution: PyTorch's numbers to second order, the readable definitions, adjoints, layout, errors."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.ops.convolution import (
    _conv2d,
    _conv2d_weight_gradient,
    _conv_transpose2d,
    conv2d,
    conv2d_by_im2col,
    conv_transpose2d,
    conv_transpose2d_by_zero_insertion,
    insert_zeros,
)
from tinygen.ops.shape import flip, pad_zeros
from tinygen.ops.unfold import sliding
from tinygen.testing import check_adjoint, check_grad
from tinygen_tests.draws import numbers, seeds
from tinygen_tests.judge import host, judge, placed, same, torch

F = torch.nn.functional


def pairs(low, high):
    """An argument for both directions, as PyTorch takes it: one number or two."""
    number = st.integers(low, high)
    return st.one_of(number, st.tuples(number, number))


def two(value):
    return (value, value) if isinstance(value, int) else tuple(value)


@st.composite
def setups(draw, transposed):
    """Shapes of input, weight and bias (or None), and the arguments of one legal call."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    c, o = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    size = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    stride, padding, dilation = draw(pairs(1, 3)), draw(pairs(0, 3)), draw(pairs(1, 3))
    arguments = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    sizes = zip(size, kernel, two(stride), two(padding), two(dilation), strict=True)
    if transposed:
        extra = draw(pairs(0, 2))
        arguments["output_padding"] = extra
        for (n, k, s, p, d), e in zip(sizes, two(extra), strict=True):
            assume(e < max(s, d) and (n - 1) * s - 2 * p + d * (k - 1) + e >= 0)
        channels, weight, made = groups * o, (groups * o, c), groups * c
    else:
        for n, k, _, p, d in sizes:
            assume(n + 2 * p >= d * (k - 1) + 1)
        channels, weight, made = groups * c, (groups * o, c), groups * o
    batch = draw(st.sampled_from([(1,), (2,), (3,), (0,), ()]))  # () is a picture without a batch
    bias = (made,) if draw(st.booleans()) else None
    return (*batch, channels, *size), (*weight, *kernel), bias, arguments


def drawn(seed, shapes):
    return [None if shape is None else numbers(seed + k, shape) for k, shape in enumerate(shapes)]


@settings(max_examples=100)
@given(setup=setups(transposed=False), seed=seeds)
def test_conv2d_agrees_with_pytorch(setup, seed):
    *shapes, arguments = setup
    judge(lambda *a: conv2d(*a, **arguments), lambda *a: F.conv2d(*a, **arguments), *drawn(seed, shapes))


@settings(max_examples=100)
@given(setup=setups(transposed=True), seed=seeds)
def test_conv_transpose2d_agrees_with_pytorch(setup, seed):
    *shapes, arguments = setup
    judge(
        lambda *a: conv_transpose2d(*a, **arguments),
        lambda *a: F.conv_transpose2d(*a, **arguments),
        *drawn(seed, shapes),
    )


@settings(max_examples=30)
@given(kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)), dilation=pairs(1, 3), seed=seeds)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_named_padding_agrees_with_pytorch(kernel, dilation, seed):
    x, w = numbers(seed, (2, 2, 13, 14)), numbers(seed + 1, (3, 2, *kernel))
    for name in ("same", "valid"):
        arguments = {"padding": name, "dilation": dilation}
        judge(lambda *a: conv2d(*a, **arguments), lambda *a: F.conv2d(*a, **arguments), x, w)  # noqa: B023
    assert conv2d(tg.Tensor(placed(x)), tg.Tensor(placed(w)), padding="same", dilation=dilation).shape[2:] == (13, 14)


# --------------------------------------------------------------------------------- readable definitions


@settings(max_examples=50)
@given(setup=setups(transposed=False), seed=seeds)
def test_im2col_is_convolution(setup, seed):
    *shapes, arguments = setup
    assume(len(shapes[0]) == 4)
    judge(
        lambda *a: conv2d_by_im2col(*a, **arguments),
        lambda *a: F.conv2d(*a, **arguments),
        *drawn(seed, shapes),
        manners=False,
    )


@settings(max_examples=50)
@given(setup=setups(transposed=True), seed=seeds)
def test_zero_insertion_is_transposed_convolution(setup, seed):
    *shapes, arguments = setup
    assume(len(shapes[0]) == 4)
    judge(
        lambda *a: conv_transpose2d_by_zero_insertion(*a, **arguments),
        lambda *a: F.conv_transpose2d(*a, **arguments),
        *drawn(seed, shapes),
        manners=False,
    )


# The fast kernels do different things for different shapes: each of these takes another way through them.
LARGER = {
    "windows overlap": ((3, 32, 12, 12), (32, 32, 3, 3), {"padding": 1}),
    "windows overlap, strided": ((3, 32, 12, 13), (32, 32, 3, 3), {"padding": 1, "stride": 2}),
    "windows are copied": ((3, 64, 7, 7), (128, 64, 3, 3), {"padding": 1}),
    "long sums in pieces": ((2, 128, 8, 8), (32, 128, 4, 4), {"padding": 1, "stride": 2}),
    "one channel in": ((5, 1, 12, 12), (16, 1, 3, 3), {"padding": 1}),
    "one channel out": ((5, 16, 12, 12), (1, 16, 3, 3), {"padding": 1}),
    "fewer channels out than in": ((5, 32, 9, 9), (8, 32, 3, 3), {"padding": 1}),
    "1×1": ((5, 32, 9, 9), (48, 32, 1, 1), {}),
    "1×1, strided": ((5, 32, 9, 9), (48, 32, 1, 1), {"stride": 2}),
    "unpadded": ((5, 8, 9, 10), (16, 8, 3, 2), {}),
    "dilated": ((3, 16, 12, 12), (16, 16, 3, 3), {"padding": 2, "dilation": 2}),
    "groups": ((3, 48, 9, 9), (80, 24, 3, 3), {"padding": 1, "groups": 2}),
    "merged groups": ((3, 24, 9, 9), (24, 2, 3, 3), {"padding": 1, "groups": 12}),
    "depthwise": ((3, 20, 9, 9), (20, 1, 3, 3), {"padding": 1, "groups": 20}),
    "many pictures, depthwise": ((33, 6, 7, 9), (12, 1, 3, 3), {"padding": 1, "groups": 6}),
    "many pictures, small groups": ((33, 6, 7, 9), (4, 3, 3, 2), {"padding": 1, "stride": 2, "groups": 2}),
    "more padding than filter": ((2, 16, 5, 5), (16, 16, 3, 3), {"padding": 4}),
    "filter larger than picture": ((2, 16, 2, 2), (16, 16, 5, 5), {"padding": 2}),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LARGER)
def test_fast_convolutions_equal_their_definitions(name, dtype):
    shape, filters, arguments = LARGER[name]
    close = {"rtol": 0, "atol": 2e-6 if dtype == "float32" else 1e-14}  # of the largest number

    def leaf(seed, shape):
        return tg.Tensor(placed(numbers(seed, shape, -1, 1).astype(dtype))).requires_grad_()

    x, w, b = leaf(0, shape), leaf(1, filters), leaf(2, filters[:1])
    g = leaf(3, F.conv2d(torch.zeros(shape), torch.zeros(filters), **arguments).shape)
    fast, slow = conv2d(x, w, b, **arguments), conv2d_by_im2col(x, w, b, **arguments)
    pairs = [(fast, slow), *zip(tg.grad(fast, [x, w, b], g), tg.grad(slow, [x, w, b], g), strict=True)]

    back = {**arguments, "output_padding": arguments.get("stride", 1) - 1}
    y, c = leaf(4, g.shape), leaf(5, shape[1:2])
    fast, slow = conv_transpose2d(y, w, c, **back), conv_transpose2d_by_zero_insertion(y, w, c, **back)
    v = tg.Tensor(placed(numbers(6, fast.shape).astype(dtype)))
    pairs += [(fast, slow), *zip(tg.grad(fast, [y, w, c], v), tg.grad(slow, [y, w, c], v), strict=True)]
    for a, b in pairs:
        a, b = host(a), host(b)
        assert a.dtype == b.dtype == dtype and a.shape == b.shape
        scale = np.abs(b).max()
        np.testing.assert_allclose(a / scale, b / scale, **close)


# ---------------------------------------------------------------------------- worked examples of the lectures


def picture(rows, dtype="float64"):
    return tg.Tensor(placed(np.array(rows, dtype)[None, None]))


@pytest.mark.parametrize("convolution", [conv2d, conv2d_by_im2col])
def test_the_lectures_convolution(convolution):
    X = picture(np.arange(1, 17).reshape(4, 4))
    filter = picture([[1, 1, 1], [2, 0, 1], [-1, -1, 0]])
    Y = convolution(X, filter, tg.Tensor(placed(np.array([3.0]))))
    np.testing.assert_array_equal(host(Y)[0, 0], [[7, 11], [23, 27]])


X, FILTER = [[1, 2], [3, 4]], [[1, -1], [2, 1]]
UNFLIPPED = [[1, 2, 2, 4], [-1, 1, -2, 2], [3, 6, 4, 8], [-3, 3, -4, 4]]
FLIPPED = [[1, -1, 2, -2], [2, 1, 4, 2], [3, -3, 4, -4], [6, 3, 8, 4]]


def test_the_lectures_transposed_convolution_slides_the_filter_unflipped():
    zeros = pad_zeros(pad_zeros(insert_zeros(picture(X), 2), 2, 1, 1), 3, 1, 1)
    np.testing.assert_array_equal(
        host(zeros)[0, 0], [[0, 0, 0, 0, 0], [0, 1, 0, 2, 0], [0, 0, 0, 0, 0], [0, 3, 0, 4, 0], [0, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(host(conv2d(zeros, picture(FILTER)))[0, 0], UNFLIPPED)


@pytest.mark.parametrize("transposed", [conv_transpose2d, conv_transpose2d_by_zero_insertion])
def test_pytorchs_transposed_convolution_slides_it_flipped(transposed):
    """So the adjoint gives the lectures' matrix for the filter rotated by 180°, and another one as it stands."""
    turned = flip(picture(FILTER), (2, 3))
    np.testing.assert_array_equal(host(transposed(picture(X), turned, stride=2))[0, 0], UNFLIPPED)
    np.testing.assert_array_equal(host(transposed(picture(X), picture(FILTER), stride=2))[0, 0], FLIPPED)
    theirs = F.conv_transpose2d(torch.tensor([[X]]), torch.tensor([[FILTER]]), stride=2)
    np.testing.assert_array_equal(theirs[0, 0].numpy(), FLIPPED)


# ------------------------------------------------------------------------------------ the closed family


@settings(max_examples=50)
@given(setup=setups(transposed=False), seed=seeds)
def test_the_three_derivatives_are_adjoint(setup, seed):
    """⟨conv2d(x, w), y⟩ = ⟨x, conv_transpose2d(y, w)⟩ = ⟨w, weight_gradient(x, y)⟩ = T(x, w, y)."""
    shape, filters, _, arguments = setup
    assume(len(shape) == 4)
    groups = arguments.pop("groups")
    window = sliding(shape[2:], filters[2:], *(arguments[k] for k in ("stride", "padding", "dilation")), "test")
    x, w = numbers(seed, shape), numbers(seed + 1, filters)
    y = numbers(seed + 2, (shape[0], filters[0], *window.out))
    at = lambda a: tg.Tensor(placed(a))
    check_adjoint(
        lambda x: _conv2d(x, at(w), None, window, groups),
        lambda y: _conv_transpose2d(y, at(w), None, window, groups),
        x,
        y,
    )
    check_adjoint(
        lambda w: _conv2d(at(x), w, None, window, groups),
        lambda y: _conv2d_weight_gradient(at(x), y, window, groups),
        w,
        y,
    )


def test_three_orders():
    x, w, b = numbers(0, (1, 1, 3, 3)), numbers(1, (1, 1, 2, 2)), numbers(2, (1,))
    check_grad(lambda x, w, b: conv2d(x, w, b, padding=1) ** 2, x, w, b, order=3)
    check_grad(lambda x, w, b: conv_transpose2d(x, w, b, stride=2, padding=1) ** 2, x, w, b, order=3)


def test_the_gradient_of_a_gradients_size_reaches_the_filter():
    """What a gradient penalty needs: ∂‖∂y/∂x‖²/∂w, through the input gradient."""
    judge(
        lambda x, w: (tg.grad(conv2d(x, w, stride=2).tanh().sum(), [x], create_graph=True)[0] ** 2).sum(),
        lambda x, w: (
            torch.autograd.grad(F.conv2d(x, w, stride=2).tanh().sum(), [x], create_graph=True)[0] ** 2
        ).sum(),
        numbers(0, (2, 2, 5, 5)),
        numbers(1, (3, 2, 3, 3)),
        manners=False,
    )


def test_only_what_is_wanted_is_computed():
    x, w = tg.Tensor(placed(numbers(0, (1, 1, 3, 3)))), tg.Tensor(placed(numbers(1, (1, 1, 2, 2)))).requires_grad_()
    y = conv2d(x, w)
    assert [name.op.name for name in [y.grad_fn]] == ["conv2d"]
    y.sum().backward()
    assert x.grad is None and w.grad.shape == w.shape


# -------------------------------------------------------------------------------------- dtypes and memory


def test_float32_stays_float32_to_second_order():
    x, w, b = (
        tg.Tensor(placed(numbers(k, shape).astype("float32"))).requires_grad_()
        for k, shape in enumerate([(2, 3, 6, 5), (4, 3, 3, 2), (4,)])
    )
    for y in (conv2d(x, w, b, stride=2, padding=1), conv_transpose2d(conv2d(x, w, b), w, None, stride=(2, 1))):
        first = tg.grad((y * y).sum(), [x, w, b], create_graph=True)
        second = tg.grad(sum((d * d).sum() for d in first), [x, w, b])
        assert {t.dtype for t in (y, *first, *second)} == {np.dtype("float32")}


@pytest.mark.parametrize("transposed", [False, True])
def test_float16_is_summed_in_float32(transposed):
    x, w, b = (numbers(k, shape).astype("float16") for k, shape in enumerate([(1, 64, 6, 6), (64, 64, 3, 3), (64,)]))
    ours = conv_transpose2d if transposed else conv2d
    theirs = F.conv_transpose2d if transposed else F.conv2d
    y = ours(*(tg.Tensor(placed(a)) for a in (x, w, b)), padding=1)
    assert y.dtype == "float16"
    exact = theirs(*(torch.from_numpy(a.astype("float64")) for a in (x, w, b)), padding=1).numpy()
    np.testing.assert_allclose(host(y), exact, rtol=0, atol=1e-3 * np.abs(exact).max())


@pytest.mark.parametrize("dtype", ["int64", "complex128"])
def test_other_numbers_are_convolved_too(dtype):
    rng = np.random.default_rng(0)
    x, w = rng.integers(-5, 5, (2, 2, 5, 6)).astype(dtype), rng.integers(-5, 5, (3, 2, 2, 3)).astype(dtype)
    if dtype == "complex128":
        x, w = x + 1j * rng.integers(-5, 5, x.shape), w + 1j * rng.integers(-5, 5, w.shape)
    ours = conv2d(tg.Tensor(placed(x)), tg.Tensor(placed(w)), stride=2, padding=1)
    same(ours, F.conv2d(torch.from_numpy(x), torch.from_numpy(w), stride=2, padding=1))


@pytest.mark.cpu_only("a GPU's kernels write C order")
def test_results_have_their_channels_last_in_memory():
    x, w = tg.Tensor(placed(numbers(0, (2, 3, 6, 5)))), tg.Tensor(placed(numbers(1, (4, 3, 3, 3))))
    for y in (conv2d(x, w, padding=1), conv2d(x, w[:, :, :1, :1]), conv_transpose2d(conv2d(x, w), w, stride=2)):
        assert y.data.transpose(0, 2, 3, 1).flags.c_contiguous


def layouts(x):
    """The same numbers in other orders of memory, with gaps, backwards, and repeated along an axis."""
    yield "channels last", np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    yield "sliced", np.repeat(x, 2, axis=1)[:, ::2]
    yield "reversed", x[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1]
    yield "Fortran", np.asfortranarray(x)


@pytest.mark.cpu_only("about NumPy's strides")
@pytest.mark.parametrize("arguments", [{"padding": 1}, {"stride": 2}, {"groups": 2}])
def test_every_layout_gives_the_same(arguments):
    x = numbers(0, (3, 6, 7, 8)).astype("float32")
    w = numbers(1, (8, 6 // arguments.get("groups", 1), 3, 3)).astype("float32")
    one = np.broadcast_to(x[:1, :1], x.shape)
    cases = [(name, x, laid) for name, laid in layouts(x)] + [("repeated", one.copy(), one)]
    for name, plain, laid in cases:
        found = []
        for a in (plain, laid):
            a.flags.writeable = False
            t, v = tg.Tensor(a).requires_grad_(), tg.Tensor(w).requires_grad_()
            y = conv2d(t, v, **arguments)
            found.append([y, *tg.grad((y * y).sum(), [t, v])])
            z = conv_transpose2d(tg.Tensor(np.asarray(y.data)), v, **arguments)
            found[-1].append(z)
        for p, q in zip(*found, strict=True):
            np.testing.assert_allclose(p.data, q.data, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.cpu_only("about NumPy's memory")
def test_results_share_no_memory_and_inputs_are_not_written_to():
    for filters, arguments in [((4, 4, 1, 1), {}), ((4, 4, 3, 3), {"padding": 1}), ((4, 1, 1, 1), {"groups": 4})]:
        x = numbers(0, (2, 5, 5, 4)).transpose(0, 3, 1, 2)
        w = numbers(1, filters)
        for a in (x, w):
            a.flags.writeable = False
        for f in (conv2d, conv_transpose2d):
            y = f(tg.Tensor(x), tg.Tensor(w), **arguments)
            assert not np.shares_memory(y.data, x) and not np.shares_memory(y.data, w)


def test_an_empty_batch_has_gradients_of_zeros():
    x = tg.Tensor(placed(np.zeros((0, 2, 4, 4), "float32"))).requires_grad_()
    w, b = (tg.Tensor(placed(numbers(k, s).astype("float32"))).requires_grad_() for k, s in ((0, (2, 2, 3, 3)), (1, 2)))
    for y in (conv2d(x, w, b), conv_transpose2d(x, w, b, stride=2)):
        dx, dw, db = tg.grad(y.sum(), [x, w, b])
        assert dx.shape == x.shape and not host(dw).any() and not host(db).any()
        assert dw.shape == w.shape and dw.dtype == "float32"


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("shapes", "arguments", "error", "says"),
    [
        (((1, 3, 5, 5), (2, 4, 3, 3)), {}, ValueError, r"groups=1 needs .* 4·1 = 4 channels, .* \(1, 3, 5, 5\) has 3"),
        (((1, 4, 5, 5), (3, 2, 3, 3)), {"groups": 2}, ValueError, r"groups=2 must divide the 3 filters of weight"),
        (((1, 4, 5, 5), (2, 4, 3, 3)), {"groups": 0}, ValueError, "groups must be a positive integer, got 0"),
        (((1, 4, 5, 5), (2, 4, 3, 3)), {"groups": 1.0}, ValueError, "groups must be a positive integer, got 1.0"),
        (((1, 1, 2, 5), (1, 1, 3, 3)), {}, ValueError, r"spans 3×3 .*, more than the padded input's 2×5"),
        (((1, 1, 5, 4), (1, 1, 3, 3)), {"dilation": 2}, ValueError, "spans 5×5 .*dilation .2, 2.*padded input's 5×4"),
        (((5, 5), (1, 1, 3, 3)), {}, ValueError, r"expected input \(N, C, H, W\) or \(C, H, W\), got shape \(5, 5\)"),
        (((1, 1, 5, 5), (1, 3, 3)), {}, ValueError, r"expected weight \(O, C/groups, kh, kw\), got shape \(1, 3, 3\)"),
        (((1, 1, 5, 5), (1, 1, 3, 3), (2,)), {}, ValueError, r"bias must have the shape \(1,\), got \(2,\)"),
        (((1, 1, 5, 5), (1, 1, 3, 3), (1, 1)), {}, ValueError, r"bias must have the shape \(1,\), got \(1, 1\)"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"padding": "same", "stride": 2}, ValueError, "only with stride=1, got .*2, 2"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"padding": "full"}, ValueError, '"same", "valid", .* got .full'),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"padding": -1}, ValueError, "padding must be at least 0, got -1"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"dilation": (1, 0)}, ValueError, r"dilation must be at least 1, got \(1, 0\)"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"stride": 1.5}, TypeError, "stride must be an integer or a pair .* 1.5"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"stride": (1, 2, 3)}, TypeError, "stride must be an integer or a pair"),
        (((1, 1, 0, 5), (1, 1, 1, 1)), {"padding": 1}, ValueError, r"only the batch .*, got input \(1, 1, 0, 5\)"),
        (((1, 0, 5, 5), (1, 0, 1, 1)), {}, ValueError, "only the batch may be empty"),
    ],
)  # fmt: skip
def test_conv2d_errors(shapes, arguments, error, says):
    with pytest.raises(error, match="conv2d: .*" + says):
        conv2d(*(tg.Tensor(placed(np.zeros(shape))) for shape in shapes), **arguments)


@pytest.mark.parametrize(
    ("shapes", "arguments", "error", "says"),
    [
        (((1, 3, 5, 5), (2, 4, 3, 3)), {}, ValueError, r"\(2, 4, 3, 3\) needs an input of 2 channels .* has 3"),
        (((1, 3, 5, 5), (3, 4, 3, 3)), {"groups": 2}, ValueError, "groups=2 must divide the 3 input channels"),
        (((1, 4, 5, 5), (4, 3, 3, 3), (3,)), {"groups": 2}, ValueError, r"6 channels, .* shape \(6,\), got \(3,\)"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"output_padding": 1}, ValueError, r"smaller than stride=.* or dilation=\(1, 1"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"output_padding": (0, 2), "stride": 2}, ValueError, "must be smaller than"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"output_padding": -1}, ValueError, "output_padding must be at least 0, got -1"),
        (((1, 1, 1, 1), (1, 1, 2, 2)), {"padding": 1}, ValueError, r"have the size \(0, 0\) .*; use less padding"),
        (((1, 1, 5, 5), (1, 1, 3, 3)), {"padding": "same"}, TypeError, "got 'same'; names are for conv2d"),
        (((1, 1, 5, 5), (1, 1, 3)), {}, ValueError, r"expected weight \(C, O/groups, kh, kw\), got shape \(1, 1, 3\)"),
        (((5,), (1, 1, 3, 3)), {}, ValueError, r"expected input \(N, C, H, W\) or \(C, H, W\), got shape \(5,\)"),
    ],
)  # fmt: skip
def test_conv_transpose2d_errors(shapes, arguments, error, says):
    with pytest.raises(error, match="conv_transpose2d: .*" + says):
        conv_transpose2d(*(tg.Tensor(placed(np.zeros(shape))) for shape in shapes), **arguments)


@pytest.mark.parametrize("f", [conv2d, conv_transpose2d])
def test_kinds_of_arguments(f):
    x, w = (tg.Tensor(placed(np.zeros(shape))) for shape in ((1, 1, 3, 3), (1, 1, 2, 2)))
    with pytest.raises(TypeError, match=f"{f.__name__}: dtypes must agree, got input float64, weight float32; convert"):
        f(x, w.to(tg.float32))
    with pytest.raises(TypeError, match="got input float64, weight float64, bias float32"):
        f(x, w, tg.Tensor(placed(np.zeros(1, "float32"))))
    with pytest.raises(TypeError, match=f"{f.__name__}: expected weight to be a Tensor, got"):
        f(x, w.data)
    with pytest.raises(TypeError, match="expected bias to be a Tensor, got list"):
        f(x, w, [0.0])


@pytest.mark.parametrize("f", [conv2d, conv_transpose2d])
def test_devices_do_not_mix(f):
    with tg.testing.strict_cupy():
        x, w = tg.zeros(1, 1, 3, 3, device="cpu"), tg.zeros(1, 1, 2, 2, device="cuda")
        with pytest.raises(tg.DeviceError, match="different devices, cpu and cuda:0; move one"):
            f(x, w)
        with pytest.raises(tg.DeviceError, match="different devices, cpu and cuda:0"):
            f(x, w.to("cpu"), tg.zeros(1, device="cuda"))
