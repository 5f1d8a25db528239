"""Resampling: PyTorch's pixels for every size and factor, adjoints, layout, errors."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.ops import resampling
from tinygen.ops.resampling import interpolate, pixel_shuffle, pixel_unshuffle
from tinygen.testing import check_adjoint, check_grad
from tinygen_tests.draws import numbers, seeds
from tinygen_tests.judge import host, judge, placed, same, torch

float32, float64 = np.dtype("float32"), np.dtype("float64")
factors = st.one_of(st.sampled_from([0.5, 1, 1.1, 1.3, 1.5, 2, 2.2, 2.5, 3, 1 / 3]), st.floats(0.25, 3.5))


@st.composite
def resized(draw, axes):
    """A shape, and size or scale_factor for it, as one number or one for each axis."""
    lengths = tuple(draw(st.integers(1, 6)) for _ in range(axes))
    lead = draw(st.sampled_from([(1, 2), (2, 1), (0, 2)]))
    each = draw(st.booleans())
    if draw(st.booleans()):
        size = draw(st.lists(st.integers(1, 9), min_size=axes, max_size=axes))
        return (*lead, *lengths), {"size": size if each else size[0]}
    scale = [max(draw(factors), 1 / n) for n in lengths]
    recompute = draw(st.sampled_from([None, True, False]))
    return (*lead, *lengths), {
        "scale_factor": scale if each else max(scale),
        "recompute_scale_factor": recompute,
    }


@settings(max_examples=100)
@given(data=st.data(), seed=seeds)
def test_nearest_agrees_with_pytorch(data, seed):
    shape, arguments = data.draw(resized(2))
    judge(
        lambda x: interpolate(x, **arguments),
        lambda x: torch.nn.functional.interpolate(x, **arguments),
        numbers(seed, shape),
    )


@pytest.mark.parametrize("axes", [1, 3])
@settings(max_examples=50)
@given(data=st.data(), seed=seeds)
def test_nearest_of_lines_and_volumes_agrees_with_pytorch(axes, data, seed):
    shape, arguments = data.draw(resized(axes))
    x = numbers(seed, shape)
    for dtype in (float64, float32):
        y = interpolate(tg.Tensor(placed(x.astype(dtype))), **arguments)
        same(y, torch.nn.functional.interpolate(torch.from_numpy(x.astype(dtype)), **arguments))
    if "size" in arguments:
        # PyTorch's backward reads other places than its forward where m = n or m = 2n by an odd scale_factor, and
        # is not the derivative there.
        judge(lambda x: interpolate(x, **arguments), lambda x: torch.nn.functional.interpolate(x, **arguments), x)
    else:
        check_grad(
            lambda x: interpolate(x, **arguments), x[:1, :1] if x.size else np.ones((1, 1, *x.shape[2:])), order=1
        )


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_nearest_reads_pytorchs_pixels_for_many_sizes(layout):
    rng = np.random.default_rng(0)
    pixels = np.arange(40.0, dtype="float32")
    for n in range(1, 40, 2):
        x = np.broadcast_to(pixels[:n], (1, 4, 1, n)).copy()
        theirs = torch.from_numpy(x)
        if layout == "channels last":
            theirs = theirs.contiguous(memory_format=torch.channels_last)
        ours = tg.Tensor(placed(x))
        for m in rng.integers(1, 90, 8):
            same(interpolate(ours, (1, int(m))), torch.nn.functional.interpolate(theirs, (1, int(m))))
        for factor in (1.1, 1.3, 2.2, 0.7, *rng.uniform(1 / n, 4, 6)):
            scale = (1.0, max(float(factor), 1 / n))
            same(interpolate(ours, scale_factor=scale), torch.nn.functional.interpolate(theirs, scale_factor=scale))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nearest_rounds_as_pytorch_does(axes, dtype):
    """The sizes and factors for which ⌊o·step⌋ is another pixel in float32 than in float64."""
    found = 0
    for n, spec in itertools.product(range(1, 60), [*range(2, 100), 0.3, 0.7, 1.1, 1.3, 1.9, 2.2, 2.3, 2.7, 3.3]):
        by_size = isinstance(spec, int)
        m = spec if by_size else int(n * spec)
        step = n / m if by_size else 1 / spec
        o = np.arange(m)
        in_double = o * step
        in_single = np.floor(o.astype("float32") * np.float32(step))
        in_between = np.floor(in_double.astype("float32"))
        if m and (np.any(in_single != in_between) or np.any(in_between != np.floor(in_double))):
            found += 1
            x = np.arange(n, dtype=dtype).reshape(1, 1, *(1,) * (axes - 1), n)
            theirs = torch.from_numpy(x)
            if axes == 2:  # of float64 PyTorch's versions differ; this one rounds as those of float32 do
                x = np.repeat(x, 4, axis=1)
                theirs = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
            arguments = {"size": (*(1,) * (axes - 1), m)} if by_size else {"scale_factor": (*(1.0,) * (axes - 1), spec)}
            ours = interpolate(tg.Tensor(placed(x)), **arguments)
            same(ours, torch.nn.functional.interpolate(theirs, **arguments))
    assert found > 20


@settings(max_examples=100)
@given(data=st.data(), align=st.sampled_from([None, False, True]), seed=seeds)
def test_bilinear_agrees_with_pytorch(data, align, seed):
    shape, arguments = data.draw(resized(2))
    arguments |= {"mode": "bilinear", "align_corners": align}
    judge(
        lambda x: interpolate(x, **arguments),
        lambda x: torch.nn.functional.interpolate(x, **arguments),
        numbers(seed, shape),
    )


def test_large_pictures_are_multiplied_in_pieces():
    x = numbers(0, (2, 3, 120, 150))
    for align in (False, True):
        judge(
            lambda x: interpolate(x, (260, 310), None, "bilinear", align),  # noqa: B023
            lambda x: torch.nn.functional.interpolate(x, (260, 310), None, "bilinear", align),  # noqa: B023
            x,
            order=1,
        )
    judge(lambda x: interpolate(x, (70, 99)), lambda x: torch.nn.functional.interpolate(x, (70, 99)), x, order=1)


def test_arguments_stand_in_pytorchs_order():
    x = numbers(0, (1, 2, 3, 4))
    judge(
        lambda x: interpolate(x, None, (1.7, 2.3), "bilinear", False, True),
        lambda x: torch.nn.functional.interpolate(x, None, (1.7, 2.3), "bilinear", False, True),
        x,
    )
    judge(lambda x: interpolate(x, 5), lambda x: torch.nn.functional.interpolate(x, 5), x)


def test_pixels_by_hand():
    x = tg.Tensor(placed(np.array([[[[0.0, 1.0], [2.0, 3.0]]]])))
    np.testing.assert_array_equal(
        host(interpolate(x, scale_factor=2)), [[[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]]]
    )
    np.testing.assert_array_equal(host(interpolate(x, (1, 4), mode="bilinear")), [[[[1.0, 1.25, 1.75, 2.0]]]])
    np.testing.assert_array_equal(
        host(interpolate(x, (2, 3), mode="bilinear", align_corners=True)), [[[[0, 0.5, 1], [2, 2.5, 3]]]]
    )


def test_one_bad_pixel_stays_where_it_is():
    x = np.zeros((1, 1, 8, 8))
    x[0, 0, 0, 0] = np.nan
    for mode in ("nearest", "bilinear"):
        for size in (16, 5, 11):
            y = host(interpolate(tg.Tensor(placed(x)), size, mode=mode))
            assert np.isnan(y[..., 0, 0]).all() and not np.isnan(y[..., 4:, :]).any() and not np.isnan(y[..., 4:]).any()


# ------------------------------------------------------------------------------------------- gradients


def test_gradients_without_pytorch():
    x = numbers(0, (1, 1, 2, 3))
    for arguments in (
        {"scale_factor": 2},
        {"size": (3, 2)},
        {"size": (3, 2), "mode": "bilinear"},
        {"size": (3, 2), "mode": "bilinear", "align_corners": True},
    ):
        check_grad(lambda x: interpolate(x * x, **arguments), x)  # noqa: B023
    check_grad(lambda x: interpolate(x, 4, mode="bilinear"), x, order=3)
    check_grad(lambda x: pixel_unshuffle(pixel_shuffle(x * x, 2), 2), numbers(1, (4, 1, 2)))


@settings(max_examples=60)
@given(
    mode=st.sampled_from(["nearest", "bilinear", "corners"]),
    n=st.integers(1, 7),
    m=st.integers(1, 9),
    step=st.floats(0.2, 3),
    dim=st.sampled_from([-1, -2, -3]),
    seed=seeds,
)
def test_adjoints(mode, n, m, step, dim, seed):
    shape = [2, 3, 2, 3]
    shape[dim] = n
    x = numbers(seed, shape)
    shape[dim] = m
    y = numbers(seed + 1, shape)
    step = (n - 1) / max(m - 1, 1) if mode == "corners" else step
    check_adjoint(
        lambda x: resampling._resample(x, dim, mode, m, step, float64),
        lambda y: resampling._resample_adjoint(y, dim, mode, n, step, float64),
        x,
        y,
    )


def test_shuffling_is_adjoint_to_unshuffling():
    x, y = numbers(0, (2, 8, 3, 5)), numbers(1, (2, 2, 6, 10))
    check_adjoint(lambda x: pixel_shuffle(x, 2), lambda y: pixel_unshuffle(y, 2), x, y)


# --------------------------------------------------------------------------------------- pixel shuffle


@settings(max_examples=40)
@given(
    lead=st.sampled_from([(), (2,), (2, 3)]),
    c=st.integers(1, 2),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    r=st.integers(1, 3),
    seed=seeds,
)
def test_pixel_shuffle_agrees_with_pytorch(lead, c, size, r, seed):
    """Proves: pixel_shuffle, pixel_unshuffle."""
    h, w = size
    functional = torch.nn.functional
    x = numbers(seed, (*lead, c * r * r, h, w))
    judge(lambda x: pixel_shuffle(x, r), lambda x: functional.pixel_shuffle(x, r), x)
    x = numbers(seed, (*lead, c, h * r, w * r))
    judge(lambda x: pixel_unshuffle(x, r), lambda x: functional.pixel_unshuffle(x, r), x)


def test_pixel_shuffle_of_an_empty_batch():  # PyTorch's has no backward
    x = tg.Tensor(placed(np.zeros((0, 8, 2, 3))), requires_grad=True)
    y = pixel_shuffle(x, 2)
    assert y.shape == (0, 2, 4, 6)
    assert pixel_unshuffle(y, 2).shape == x.shape
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_pixel_shuffle_by_hand():
    x = tg.Tensor(placed(np.arange(8).reshape(4, 1, 2)))
    np.testing.assert_array_equal(host(pixel_shuffle(x, 2)), [[[0, 2, 1, 3], [4, 6, 5, 7]]])
    np.testing.assert_array_equal(host(pixel_unshuffle(pixel_shuffle(x, 2), 2)), host(x))


# ---------------------------------------------------------------------------------------------- memory


@pytest.mark.cpu_only("the order of axes in memory")
@pytest.mark.parametrize("n", [2, 40])  # in one go, and block by block
@pytest.mark.parametrize(
    "f",
    [
        lambda x: interpolate(x, scale_factor=2),
        lambda x: interpolate(x, (9, 12)),
        lambda x: interpolate(x, (9, 12), mode="bilinear"),
        lambda x: pixel_shuffle(x, 2),
        lambda x: pixel_unshuffle(x, 2),
    ],
)
def test_channels_last_stays(f, n):
    def last(x):
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

    x = numbers(0, (n, 16, 8, 6)).astype("float32")
    a, b = tg.Tensor(x, requires_grad=True), tg.Tensor(last(x), requires_grad=True)
    ya, yb = f(a), f(b)
    assert ya.dtype == "float32"
    g = numbers(1, ya.shape).astype("float32")
    (ga,), (gb,) = tg.grad(ya, [a], tg.Tensor(g)), tg.grad(yb, [b], tg.Tensor(last(g)))
    np.testing.assert_allclose(ya.data, yb.data, rtol=1e-6)
    np.testing.assert_allclose(ga.data, gb.data, rtol=1e-5, atol=1e-5)
    assert yb.data.transpose(0, 2, 3, 1).flags.c_contiguous and gb.data.transpose(0, 2, 3, 1).flags.c_contiguous
    assert ya.data.flags.c_contiguous and ga.data.flags.c_contiguous
    one = tg.Tensor(x[1:2], requires_grad=True)
    np.testing.assert_allclose(f(one).data[0], ya.data[1], rtol=1e-6)
    np.testing.assert_allclose(tg.grad(f(one), [one], tg.Tensor(g[1:2]))[0].data[0], ga.data[1], rtol=1e-5, atol=1e-5)


@pytest.mark.cpu_only("NumPy memory")
@pytest.mark.parametrize("arguments", [{"size": 3}, {"scale_factor": 1}, {"size": 3, "mode": "bilinear"}])
def test_the_result_is_never_the_inputs_memory(arguments):
    x = tg.Tensor(numbers(0, (1, 2, 3, 3)))
    y = interpolate(x, **arguments)
    np.testing.assert_array_equal(y.data, x.data)
    assert not np.may_share_memory(y.data, x.data)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32"])
def test_nearest_keeps_every_dtype(dtype):
    x = (numbers(0, (1, 2, 3, 3)) > 0).astype(dtype)
    for size in (6, 5, 2):
        assert interpolate(tg.Tensor(placed(x)), size).dtype == dtype


def test_bilinear_of_float16_is_computed_in_float32():
    x = numbers(0, (1, 2, 3, 3)).astype("float16")
    y = interpolate(tg.Tensor(placed(x)), 5, mode="bilinear")
    theirs = torch.nn.functional.interpolate(torch.from_numpy(x.astype("float32")), size=5, mode="bilinear")
    assert y.dtype == "float16"
    np.testing.assert_array_equal(host(y), theirs.numpy().astype("float16"))


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("shape", "arguments", "error", "says"),
    [
        ((1, 1, 2, 2), {}, ValueError, "expected either size or scale_factor, got size=None, scale_factor=None"),
        ((1, 1, 2, 2), {"size": 2, "scale_factor": 2}, ValueError, "expected either size or scale_factor"),
        ((1, 1, 2, 2), {"size": (2, 2, 2)}, ValueError, r"size to be one number or 2, got \(2, 2, 2\)"),
        ((1, 1, 2, 2), {"scale_factor": (2,)}, ValueError, r"scale_factor to be one number or 2, got \(2,\)"),
        ((1, 1, 2, 2), {"size": 2.5}, TypeError, "size to be made of integers, got 2.5"),
        ((1, 1, 2, 2), {"size": (2, None)}, TypeError, "size to be made of integers"),
        ((1, 1, 2, 2), {"size": 0}, ValueError, r"every length must be at least 1, got \(2, 2\) → \(0, 0\)"),
        ((1, 1, 2, 2), {"scale_factor": 0.4}, ValueError, "every length must be at least 1"),
        ((1, 1, 2, 2), {"scale_factor": -1}, ValueError, "every length must be at least 1"),
        ((1, 1, 2, 2), {"scale_factor": float("inf")}, ValueError, "scale_factor to be positive, got inf"),
        ((1, 1, 0, 2), {"size": 2}, ValueError, r"got \(0, 2\) → \(2, 2\)"),
        ((1, 1, 2, 2), {"size": 2, "align_corners": False}, ValueError, 'align_corners=False is for mode="bilinear"'),
        ((1, 1, 2, 2), {"size": 2, "recompute_scale_factor": True}, ValueError, "recompute_scale_factor=True goes"),
        ((1, 1, 2, 2), {"size": 2, "mode": "bicubic"}, NotImplementedError, "mode='bicubic' is not supported"),
        ((1, 1, 2, 2), {"size": 2, "mode": "area"}, NotImplementedError, 'the modes are "nearest" and "bilinear"'),
        ((1, 1, 2, 2), {"size": 2, "mode": "bilinear", "antialias": True}, NotImplementedError, "antialias=True"),
        ((2, 2), {"size": 2}, NotImplementedError, r"'nearest' takes input of shape \(N, C, L\), .*, got \(2, 2\)"),
        ((1, 2, 2), {"size": 2, "mode": "bilinear"}, NotImplementedError, r"of shape \(N, C, H, W\), got \(1, 2, 2\)"),
    ],
)  # fmt: skip
def test_interpolate_errors(shape, arguments, error, says):
    with pytest.raises(error, match="interpolate: .*" + says):
        interpolate(tg.Tensor(placed(np.zeros(shape))), **arguments)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda x: interpolate(x.data, 2), TypeError, "interpolate: expected a Tensor, got"),
        (lambda x: interpolate(x.long(), 2, mode="bilinear"), TypeError, "'bilinear' takes floating input, got int64"),
        (lambda x: pixel_shuffle(x, 2), ValueError, "upscale_factor=2 needs a multiple of 4 channels, .* has 3"),
        (lambda x: pixel_shuffle(x[0, 0], 1), ValueError, r"input of shape \(…, C, H, W\), got \(4, 5\)"),
        (lambda x: pixel_shuffle(x, 0), ValueError, "upscale_factor ≥ 1, got 0"),
        (lambda x: pixel_shuffle(x, 1.5), TypeError, "upscale_factor to be an integer, got 1.5"),
        (lambda x: pixel_shuffle(x.data, 1), TypeError, "pixel_shuffle: expected a Tensor"),
        (lambda x: pixel_unshuffle(x, 2), ValueError, r"downscale_factor=2 must divide .* shape \(1, 3, 4, 5\)"),
        (lambda x: pixel_unshuffle(x, -1), ValueError, "downscale_factor ≥ 1, got -1"),
    ],
)  # fmt: skip
def test_errors(call, error, says):
    with pytest.raises(error, match=says):
        call(tg.Tensor(placed(np.zeros((1, 3, 4, 5)))))
