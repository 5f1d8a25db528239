"""The fast kernels against the trilinear form itself, in tiles and blocks so small that every shape takes many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen.kernels import cpu, products, threads, tiles
from tinygen.kernels.windows import Window
from tinygen_tests.draws import numbers, seeds
from tinygen_tests.judge import strided

CACHED = (tiles.plan, tiles.cut, products._blocks, products._transposed_blocks)


@pytest.fixture(params=[1, 2, 3])
def several_threads(request):
    before = threads.get_num_threads()
    threads.set_num_threads(request.param)
    yield request.param
    threads.set_num_threads(before)


def poisoned(name, shape, dtype):
    """Scratch memory that holds NaN, as it may."""
    array = threads.scratch(name, shape, dtype)
    array[...] = np.nan
    return array


@pytest.fixture
def tiny(monkeypatch):
    """Tiles of a few numbers, blocks of a few products, threads for the smallest work, NaN in fresh scratch memory."""
    for module in (cpu, tiles, products):
        monkeypatch.setattr(module, "scratch", poisoned)
    monkeypatch.setattr(tiles, "TILE", 400)
    monkeypatch.setattr(products, "BLOCK", 300)
    monkeypatch.setattr(products, "_PANEL", 64)
    monkeypatch.setattr(cpu, "_SERIAL", 0)
    for f in CACHED:
        f.cache_clear()
    yield
    for f in CACHED:
        f.cache_clear()


@st.composite
def geometries(draw):
    """Pictures, groups, channels in and out of a group, and a Window, of any shape that the form is defined for."""
    both = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))
    window = Window(*(draw(both(low, high)) for low, high in [(1, 7), (1, 4), (1, 5), (1, 3), (0, 4), (1, 3)]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = draw(st.sampled_from([1, 2, 5, 9, 16, 17])), draw(st.sampled_from([1, 2, 5, 9, 16, 17]))
    return draw(st.integers(1, 4)), groups, *channels, window


def operands(geometry, seed):
    N, groups, c, o, window = geometry
    x = numbers(seed, (N, groups * c, *window.size))
    w = numbers(seed + 1, (groups * o, c, *window.kernel))
    y = numbers(seed + 2, (N, groups * o, *window.out))
    return (x, w, y), (numbers(seed + 3, groups * o), numbers(seed + 4, groups * c)), window, groups


def reference(x, w, y, window, groups):
    """∂T/∂y, ∂T/∂x and ∂T/∂w of T = Σ y w x, tap by tap, window by window."""
    c, o = w.shape[1], w.shape[0] // groups
    a, f = x.reshape(len(x), groups, c, *window.size), w.reshape(groups, o, c, *window.kernel)
    g = y.reshape(len(y), groups, o, *window.out)
    dy, dx, dw = np.zeros_like(g), np.zeros_like(a), np.zeros_like(f)
    for u in range(window.kernel[0]):
        for v in range(window.kernel[1]):
            for i in range(window.out[0]):
                for j in range(window.out[1]):
                    h = window.stride[0] * i + window.dilation[0] * u - window.padding[0]
                    l = window.stride[1] * j + window.dilation[1] * v - window.padding[1]
                    if 0 <= h < window.size[0] and 0 <= l < window.size[1]:
                        dy[..., i, j] += np.einsum("goc,ngc->ngo", f[..., u, v], a[..., h, l])
                        dx[..., h, l] += np.einsum("goc,ngo->ngc", f[..., u, v], g[..., i, j])
                        dw[..., u, v] += np.einsum("ngo,ngc->goc", g[..., i, j], a[..., h, l])
    return dy.reshape(y.shape), dx.reshape(x.shape), dw.reshape(w.shape)


def agree(x, w, y, b, c, window, groups, expected):
    close = {"rtol": 1e-9, "atol": 1e-10}
    np.testing.assert_allclose(cpu.conv2d(x, w, None, window, groups), expected[0], **close)
    np.testing.assert_allclose(cpu.conv2d(x, w, b, window, groups), expected[0] + b[:, None, None], **close)
    np.testing.assert_allclose(cpu.conv_transpose2d(y, w, None, window, groups), expected[1], **close)
    np.testing.assert_allclose(cpu.conv_transpose2d(y, w, c, window, groups), expected[1] + c[:, None, None], **close)
    np.testing.assert_allclose(cpu.conv2d_weight_gradient(x, y, window, groups), expected[2], **close)


@settings(max_examples=60)
@given(geometry=geometries(), seed=seeds)
def test_the_form(geometry, seed):
    (x, w, y), (b, c), window, groups = operands(geometry, seed)
    agree(x, w, y, b, c, window, groups, reference(x, w, y, window, groups))


@pytest.mark.parametrize("several_threads", [2], indirect=True)
def test_the_form_in_many_tiles_and_blocks(tiny, several_threads):
    @settings(max_examples=60)
    @given(geometry=geometries(), seed=seeds)
    def check(geometry, seed):
        (x, w, y), (b, c), window, groups = operands(geometry, seed)
        expected = reference(x, w, y, window, groups)
        agree(x, w, y, b, c, window, groups, expected)
        agree(*(strided(a) for a in (x, w, y, b, c)), window, groups, expected)

    check()


SHAPES = {
    "windows overlap": (24, 32, 32, (16, 16), 3, 1, 1),
    "windows are copied": (24, 64, 128, (7, 7), 3, 1, 1),
    "strided": (24, 32, 64, (16, 16), 4, 2, 1),
    "few channels out": (64, 32, 1, (16, 16), 3, 1, 1),
}


def large(name):
    N, C, O, size, k, s, p = SHAPES[name]
    out = tuple((n + 2 * p - k) // s + 1 for n in size)
    window = Window(size, (k, k), out, (s, s), (p, p), (1, 1))
    shapes = [(N, C, *size), (O, C, k, k), (N, O, *out), (O,)]
    return *(numbers(i, shape).astype("float32") for i, shape in enumerate(shapes)), window


@pytest.mark.parametrize("name", SHAPES)
def test_results_are_the_same_bit_for_bit_on_any_number_of_threads(name):
    x, w, y, b, window = large(name)
    before, found = threads.get_num_threads(), []
    for count in (1, 2, 2, 3, 5):
        threads.set_num_threads(count)
        found.append(
            [
                cpu.conv2d(x, w, b, window, 1),
                cpu.conv_transpose2d(y, w, None, window, 1),
                cpu.conv2d_weight_gradient(x, y, window, 1),
                cpu.channel_sums(y),
            ]
        )
    threads.set_num_threads(before)
    for other in found[1:]:
        for p, q in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(p, q)


def test_calls_from_several_threads_at_once_do_not_disturb_each_other(several_threads):
    x, w, y, b, window = large("windows overlap")
    expected = cpu.conv2d(x, w, b, window, 1), cpu.conv2d_weight_gradient(x, y, window, 1)
    found = [None] * 4

    def call(k):
        found[k] = [(cpu.conv2d(x, w, b, window, 1), cpu.conv2d_weight_gradient(x, y, window, 1)) for _ in range(3)]

    callers = [threads.threading.Thread(target=call, args=(k,)) for k in range(len(found))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive(), "a deadlock"
    for results in found:
        for result in results:
            for p, q in zip(result, expected, strict=True):
                np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("several_threads", [2], indirect=True)
def test_the_callers_errstate_holds_in_every_thread(several_threads):
    x, w, _, b, window = large("windows overlap")
    with np.errstate(all="ignore"):
        y = cpu.conv2d(np.full_like(x, 3e38), w, b, window, 1)
    assert not np.isfinite(y).all()


def test_float16_is_rounded_once():
    shapes = [(1, 64, 6, 6), (64, 64, 3, 3), (64,), (1, 64, 6, 6)]
    arrays = [numbers(k, shape).astype("float16") for k, shape in enumerate(shapes)]
    exact = [a.astype("float64") for a in arrays]
    window = Window((6, 6), (3, 3), (6, 6), (1, 1), (1, 1), (1, 1))

    def products(x, w, b, y):
        yield cpu.conv2d(x, w, b, window, 1)
        yield cpu.conv_transpose2d(y, w, b, window, 1)
        yield cpu.conv2d_weight_gradient(x, y, window, 1)

    for low, high in zip(products(*arrays), products(*exact), strict=True):
        assert low.dtype == "float16"
        np.testing.assert_allclose(low, high, rtol=5e-4, atol=1e-4)


def test_channel_sums():
    for shape in ((3, 5, 4, 2), (1, 1, 1, 1), (0, 3, 2, 2), (2, 3, 0, 4)):
        y = numbers(0, shape)
        last = np.ascontiguousarray(y.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        for a in (y, last, strided(y)):
            np.testing.assert_allclose(cpu.channel_sums(a), y.sum((0, 2, 3)))
    assert cpu.channel_sums(np.ones((60, 2, 60, 60), "float16")[:, :, :17, :30]).dtype == "float16"
    np.testing.assert_array_equal(cpu.channel_sums(np.full((60, 2, 10, 10), 2.0, "float16")), [12000, 12000])


def test_small_groups_are_merged_and_large_ones_are_not():
    w = numbers(0, (12, 2, 1, 1))
    wide, groups = cpu._merged(w, 6)
    assert wide.shape == (12, 12, 1, 1) and groups == 1
    for o in range(12):
        for c in range(12):
            assert wide[o, c, 0, 0] == (w[o, c % 2, 0, 0] if o // 2 == c // 2 else 0)
    assert cpu._merged(numbers(0, (40, 10, 1, 1)), 4)[1] == 4
    assert cpu._merged(numbers(0, (32, 1, 1, 1)), 32)[1] == 2
