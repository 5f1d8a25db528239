"""The GPU's kernels, their very source: run by the stand-in on the CPU, and compiled by NVRTC for a Hopper GPU.

Each is held to the definition that any array library computes: the ops with the kernels switched off.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen import nn, optim
from tinygen.cuda import graphs
from tinygen.kernels import windows
from tinygen.kernels.gpu import (
    blas,
    convolution,
    convolution_source,
    launch,
    normalization,
    parameters,
    pointwise,
    rows,
)
from tinygen.ops.unfold import sliding
from tinygen.testing.strict.kernels import COMPILER, RawModule
from tinygen_tests.judge import host

pytestmark = [
    pytest.mark.cpu_only("brings the stand-in itself"),
    pytest.mark.skipif(COMPILER is None, reason="the stand-in runs CUDA kernels by a C++ compiler, and finds none"),
]

F = tg.nn.functional
SOURCES = {
    "pointwise": pointwise.SOURCE, "rows": rows.SOURCE, "normalization": normalization.SOURCE,
    "parameters": parameters.SOURCE, "convolution": convolution_source.SOURCE, "capture": graphs._STORE,
}  # fmt: skip
LIMITS = {"float32": dict(rtol=2e-5, atol=2e-5), "float64": dict(rtol=1e-11, atol=1e-12)}


@contextmanager
def switched_off():
    before = launch.set_enabled(False)
    try:
        yield
    finally:
        launch.set_enabled(before)


def numbers(seed, *shape, dtype="float64"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("char", ["f", "d"])
@pytest.mark.parametrize("name", SOURCES)
def test_nvrtc_compiles_every_kernel_for_a_hopper_gpu(name, char):
    pytest.importorskip("cupy", reason="CuPy is not installed here; it brings the way to NVRTC, which needs no GPU")
    from cupy.cuda import nvrtc

    try:
        nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f"NVRTC is not installed here: {error}")
    program = nvrtc.createProgram(launch.typed(SOURCES[name], char), f"{name}.cu", (), ())
    try:
        nvrtc.compileProgram(program, ("-arch=sm_90", "--std=c++17"))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    assert nvrtc.getPTX(program)


def both(f, *arrays, dtype="float64"):
    """f of device tensors and its gradients: by the kernels, and by array operations."""
    found = []
    for off in (False, True):
        with tg.testing.strict_cupy():
            tensors = [tg.tensor(a.astype(dtype), device="cuda").requires_grad_() for a in arrays]
            before = launch.set_enabled(not off)
            try:
                y = f(*tensors)
                g = tg.tensor(numbers(99, *y.shape, dtype=dtype), device="cuda")
                found.append([host(y.detach()), *map(host, tg.grad(y, tensors, g))])
            finally:
                launch.set_enabled(before)
    return found


POINTWISE = {
    "relu": F.relu, "leaky_relu": lambda x: F.leaky_relu(x, 0.2), "leaky, steep": lambda x: F.leaky_relu(x, 1.5),
    "elu": lambda x: F.elu(x, 0.7), "softplus": lambda x: F.softplus(x, 2.0, 3.0), "logsigmoid": F.logsigmoid,
    "sigmoid": tg.sigmoid, "silu": F.silu, "gelu": F.gelu, "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "mse": lambda x: F.mse_loss(x, tg.sin(x), reduction="none"),
    "bce": lambda x: F.binary_cross_entropy_with_logits(x, tg.sigmoid(3 * x), reduction="none"),
    "softmax": lambda x: F.softmax(x, -1), "log_softmax": lambda x: F.log_softmax(x, -1),
    "softmax of another axis": lambda x: F.softmax(x, 0),
    "group_norm": lambda x: F.group_norm(x, 2), "instance_norm": F.instance_norm,
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-2:]),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
}  # fmt: skip


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", POINTWISE)
def test_a_function_is_its_definition_with_its_gradient(name, dtype):
    x = 3 * numbers(0, 3, 4, 5, 35)
    x[np.abs(x) < 1e-3] = 1
    made, expected = both(POINTWISE[name], x, dtype=dtype)
    for a, b in zip(made, expected, strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, **LIMITS[dtype])


@pytest.mark.parametrize("name", POINTWISE)
def test_infinities_and_nan_come_out_as_the_definition_has_them(name):
    if "norm" in name or "softmax" in name:
        pytest.skip("sums over rows with NaN are NaN in any order")
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 50.0, -50.0], "float32").reshape(1, 1, 1, 9)
    made, expected = both(POINTWISE[name], x, dtype="float32")
    np.testing.assert_array_equal(made[0], expected[0])


def test_safe_softmax_is_0_where_nothing_is_left():
    x = np.full((2, 3), -np.inf)
    x[0, :2] = 1000.0  # whose exponential is infinite
    with tg.testing.strict_cupy() as cp:
        y = rows.compute(cp, "softmax", 1, cp.asarray(x), numbers=(1,))
        np.testing.assert_array_equal(y.get(), [[0.5, 0.5, 0], [0, 0, 0]])
        assert np.isnan(rows.compute(cp, "softmax", 1, cp.asarray(x), numbers=(0,)).get()[1]).all()


@pytest.mark.parametrize(
    ("name", "f"),
    [
        ("batch", lambda x, w, b: F.batch_norm(x, None, None, w, b, True)),
        ("group", lambda x, w, b: F.group_norm(x, 3, w, b)),
        ("instance", lambda x, w, b: F.instance_norm(x, None, None, w, b)),
        ("layer", lambda x, w, b: F.layer_norm(tg.moveaxis(x, 1, -1), (6,), w, b)),
    ],
)
@pytest.mark.parametrize("shape", [(4, 6), (3, 6, 5), (2, 6, 7, 9), (2, 6, 31, 33)])
def test_normalisation_with_weight_and_bias(name, f, shape):
    if name == "instance" and len(shape) == 2:
        pytest.skip("instance norm needs positions")
    made, expected = both(f, 5 + numbers(0, *shape), numbers(1, 6), numbers(2, 6))
    for a, b in zip(made, expected, strict=True):
        np.testing.assert_allclose(a, b, **LIMITS["float64"])


def test_the_variance_of_near_equal_numbers_survives():
    x = (1000 + 1e-2 * numbers(0, 2, 3, 4, 5)).astype("float32")
    with tg.testing.strict_cupy():
        y = host(F.group_norm(tg.tensor(x, device="cuda"), 1, eps=0.0))
    exact = x.astype("float64")
    exact = (exact - exact.mean((1, 2, 3), keepdims=True)) / exact.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, exact, atol=0.05)


lengths = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=25)
@given(
    st.integers(0, 3), st.integers(1, 3), st.integers(1, 40), st.integers(1, 3), st.tuples(*[st.integers(4, 9)] * 2),
    lengths, st.tuples(*[st.integers(1, 3)] * 2), st.tuples(*[st.integers(0, 2)] * 2),
    st.tuples(*[st.integers(1, 2)] * 2), st.sampled_from(convolution.METHODS), st.booleans(),
    st.sampled_from(list(LIMITS)),
)  # fmt: skip
def test_convolutions_are_their_definitions(
    N, c, o, groups, size, kernel, stride, padding, dilation, method, bias, dtype
):
    try:
        window = sliding(size, kernel, stride, padding, dilation, "conv2d")
    except ValueError:
        return
    C, O = c * groups, o * groups
    x, w = numbers(0, N, C, *size, dtype=dtype), numbers(1, O, c, *kernel, dtype=dtype)
    b, d = (numbers(2, n, dtype=dtype) if bias else None for n in (O, C))
    y = windows.conv2d(x, w, b, window, groups)
    g = numbers(3, *y.shape, dtype=dtype)
    expected = (
        y, windows.conv_transpose2d(g, w, d, window, groups), windows.conv2d_weight_gradient(x, g, window, groups)
    )  # fmt: skip
    before = convolution.set_method(method)
    try:
        with tg.testing.strict_cupy() as cp:
            x, w, b, d, g = (None if a is None else cp.asarray(a) for a in (x, w, b, d, g))
            made = (
                convolution.conv2d(x, w, b, window, groups), convolution.conv_transpose2d(g, w, d, window, groups),
                convolution.conv2d_weight_gradient(x, g, window, groups),
            )  # fmt: skip
            for a, e in zip(made, expected, strict=True):
                assert a.dtype == dtype
                np.testing.assert_allclose(a.get(), e, rtol=1e-4 if dtype == "float32" else 1e-10, atol=1e-4)
    finally:
        convolution.set_method(before)


def test_tall_tiles_and_split_sums():
    """More channels than a block has rows, and enough pixels that the filter's gradient is split among blocks."""
    window = sliding((9, 8), (3, 3), 1, 1, 1, "conv2d")
    x, w, g = numbers(0, 5, 3, 9, 8), numbers(1, 70, 3, 3, 3), numbers(2, 5, 70, 9, 8)
    with tg.testing.strict_cupy() as cp:
        a, b, c = (cp.asarray(v) for v in (x, w, g))
        y = convolution.conv2d(a, b, None, window, 1)
        np.testing.assert_allclose(y.get(), windows.conv2d(x, w, None, window, 1), rtol=1e-9, atol=1e-9)
        found = convolution.conv2d_weight_gradient(a, c, window, 1).get()
        np.testing.assert_allclose(found, windows.conv2d_weight_gradient(x, g, window, 1), rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(found, convolution.conv2d_weight_gradient(a, c, window, 1).get())


def test_tf32_sends_large_convolutions_to_cublas(monkeypatch):
    calls = []
    gemm = blas.gemm
    monkeypatch.setattr(blas, "gemm", lambda *args, **kwargs: calls.append(args) or gemm(*args, **kwargs))
    window = sliding((6, 6), (3, 3), 1, 1, 1, "conv2d")
    with tg.testing.strict_cupy() as cp:
        x, w = (cp.asarray(numbers(0, *n, dtype="float32")) for n in ((2, 4, 6, 6), (16, 4, 3, 3)))
        exact = convolution.conv2d(x, w, None, window, 1)
        assert not calls and not tg.cuda.tf32_allowed()
        assert tg.cuda.allow_tf32() is False
        try:
            made = convolution.conv2d(x, w, None, window, 1)
            np.testing.assert_allclose(made.get(), exact.get(), rtol=1e-4, atol=1e-5)
            assert calls
        finally:
            assert tg.cuda.allow_tf32(False) is True
    with pytest.raises(ValueError, match="implicit, gemm"):
        convolution.set_method("fft")
    with pytest.raises(TypeError, match="True or False"):
        tg.cuda.allow_tf32(1)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize(
    ("a", "b"),
    [((3, 4), (4, 5)), ((1, 7), (7, 1)), ((5, 1), (1, 3)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)),
     ((2, 1, 3, 4), (1, 3, 4, 5)), ((3, 0), (0, 2)), ((0, 3), (3, 2)), ((2, 2, 3, 4), (2, 2, 4, 2))],
)  # fmt: skip
def test_products_read_their_operands_where_they_lie(a, b, dtype):
    x, y = numbers(0, *a, dtype=dtype), numbers(1, *b, dtype=dtype)
    with tg.testing.strict_cupy() as cp:
        for left in (cp.asarray(x), cp.asarray(x.mT.copy()).mT, cp.asarray(np.repeat(x, 2, -1))[..., ::2]):
            for right in (cp.asarray(y), cp.asarray(y.mT.copy()).mT, cp.asarray(y[..., ::-1].copy())[..., ::-1]):
                np.testing.assert_allclose(blas.product(cp, left, right).get(), x @ y, **LIMITS[dtype])
        assert blas.product(cp, cp.ones((2, 3), "int64"), cp.ones((3, 2), "int64")) is None


def test_heads_of_attention_need_no_copy_where_one_step_does_it():
    with tg.testing.strict_cupy() as cp:
        q = cp.asarray(numbers(0, 6, 5, 4))
        assert blas._operand(cp, q, 6).array is q
        assert blas._operand(cp, q.mT, 6).transposed and blas._operand(cp, q.mT, 6).step == 20
        strided = cp.asarray(numbers(0, 2, 5, 3, 4)).transpose(0, 2, 1, 3)  # (n, heads, L, d)
        assert blas._operand(cp, strided, 6).step == 20  # copied
        np.testing.assert_allclose(blas.product(cp, strided, strided.mT).get(), strided.get() @ strided.get().mT)


OPTIMIZERS = {
    "adam": lambda ps: optim.Adam(ps, 0.01, amsgrad=True, weight_decay=0.1, maximize=True),
    "adamw": lambda ps: optim.AdamW(ps, 0.01),
    "sgd": lambda ps: optim.SGD(ps, 0.05, momentum=0.9, dampening=0.1, weight_decay=0.1),
    "nesterov": lambda ps: optim.SGD(ps, 0.05, momentum=0.9, nesterov=True),
    "plain sgd": lambda ps: optim.SGD(ps, 0.05, maximize=True),
    "rmsprop": lambda ps: optim.RMSprop(ps, 0.01, centered=True, momentum=0.5, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_moves_all_parameters_as_one_by_one(name):
    """70 arrays, more than go into one launch, one of them longer than a block's piece; clipped, and averaged."""
    sizes = [(5000,), (0,), (3, 4), *[(n,) for n in range(1, 68)]]
    found = []
    for off in (False, True):
        with tg.testing.strict_cupy():
            ps = [nn.Parameter(tg.tensor(numbers(i, *s), device="cuda")) for i, s in enumerate(sizes)]
            before = launch.set_enabled(not off)
            try:
                optimizer, ema, norms = OPTIMIZERS[name](ps), optim.EMA(ps), []
                for step in range(3):
                    for i, p in enumerate(ps):
                        p.grad = tg.tensor(numbers(1000 * step + i, *p.shape), device="cuda")
                    norms.append(host(nn.utils.clip_grad_norm_(ps, 20.0 if step else 1e9)))
                    optimizer.step()
                    ema.update()
            finally:
                launch.set_enabled(before)
            averages = [host(s) for s in ema.state_dict()["shadow"].values()]
            steps = {own["step"] for own in optimizer.state_dict()["state"].values()}
            found.append([*norms, *[host(p) for p in ps], *averages])
            assert steps == {3} and ema.updates == 3
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_what_has_no_kernel_is_computed_by_array_operations():
    with tg.testing.strict_cupy() as cp:
        assert pointwise.compute(cp, "silu", cp.ones(3, "float16")) is None
        assert pointwise.compute(cp, "silu", cp.ones(3, "complex64")) is None
        assert pointwise.compute(cp, "squared_error", cp.ones(3), cp.ones((1, 3))) is None
        assert pointwise.compute(np, "silu", np.ones(3)) is None
        assert pointwise.compute(cp, "silu", cp.ones((0, 3))).shape == (0, 3)
        with switched_off():
            assert pointwise.compute(cp, "silu", cp.ones(3)) is None
        half = tg.ones(2, 3, 4, 4, device="cuda", dtype="float16")
        assert F.silu(F.group_norm(half, 1)).dtype == "float16"


def test_views_are_read_as_they_are():
    x = numbers(0, 4, 6, 5)
    with tg.testing.strict_cupy() as cp:
        y = pointwise.compute(cp, "silu", cp.asarray(x)[:, ::2].transpose(2, 0, 1))
        np.testing.assert_allclose(y.get(), (x / (1 + np.exp(-x)))[:, ::2].transpose(2, 0, 1))


def test_the_stand_in_tells_what_a_gpu_would_not_forgive():
    code = """
    extern "C" __global__ void odd(float* y, long long n) {
        if (threadIdx.x % 2) __syncthreads();
        y[threadIdx.x] = n;
    }
    """
    with tg.testing.strict_cupy() as cp:
        kernel = RawModule(code=code).get_function("odd")
        with pytest.raises(RuntimeError, match="wait at a barrier that others never reach"):
            kernel((1,), (4,), (cp.zeros(4, "float32"), 1))
        with pytest.raises(TypeError, match="takes 2 arguments, got 1"):
            kernel((1,), (4,), (cp.zeros(4, "float32"),))
        with pytest.raises(RuntimeError, match="launched with grid"):
            kernel((0,), (4,), (cp.zeros(4, "float32"), 1))
        with pytest.raises(RuntimeError, match="cannot compile"):
            RawModule(code='extern "C" __global__ void broken(float* y) { nonsense }')
        with pytest.raises(RuntimeError, match="not found"):
            RawModule(code=code).get_function("even")
