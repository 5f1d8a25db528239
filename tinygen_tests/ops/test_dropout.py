"""dropout: its mask and scale, the same mask in the gradient, the limits p = 0 and p = 1, its stream, errors."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.nn import functional as F
from tinygen.testing import check_grad, strict_cupy
from tinygen_tests.draws import numbers, stream


def test_numbers_are_dropped_or_scaled_and_so_are_gradients():
    """Proves: dropout."""
    x = tg.tensor(numbers(0, (50, 40), 1, 2), requires_grad=True)
    g = tg.tensor(numbers(1, (50, 40)))
    y = F.dropout(x, 0.2, rng=stream(0))
    y.backward(g)
    m = y.detach().numpy() / x.detach().numpy()
    kept = m != 0
    np.testing.assert_allclose(m[kept], 1 / 0.8, rtol=1e-14)
    np.testing.assert_allclose(x.grad.numpy(), g.numpy() * m, rtol=1e-14)
    # 2000 draws: the share that is kept has the standard deviation √(0.2·0.8/2000) = 0.009.
    assert abs(kept.mean() - 0.8) < 0.04


def test_the_expectation_is_kept():
    x = tg.ones(200_000)
    for p in (0.1, 0.5, 0.9):
        assert abs(F.dropout(x, p, rng=stream(1)).mean().item() - 1) < 5 * (p / (1 - p) / 200_000) ** 0.5


def test_gradients_of_two_orders():
    check_grad(lambda x: F.dropout(x, 0.4, rng=stream(3)) ** 2, numbers(0, (4, 3)))


def test_nothing_is_done_for_p_zero_or_outside_training():
    x = tg.ones(3)
    assert F.dropout(x, 0.0) is x
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.5, False) is x


def test_everything_is_dropped_for_p_one_without_nan():
    x = tg.tensor([1.0, -2.0], requires_grad=True)
    y = F.dropout(x, 1.0)
    y.sum().backward()
    assert y.tolist() == [0, 0] and x.grad.tolist() == [0, 0]


def test_the_stream_decides():
    x = tg.ones(100)
    a, b = (F.dropout(x, rng=stream(7)) for _ in range(2))
    assert a.tolist() == b.tolist()
    assert a.tolist() != F.dropout(x, rng=stream(8)).tolist()
    tg.manual_seed(5)
    c = F.dropout(x)
    tg.manual_seed(5)
    assert c.tolist() == F.dropout(x).tolist()


def test_memory_order_changes_nothing_and_stays():
    a = numbers(0, (2, 4, 5, 3)).transpose(0, 3, 1, 2)
    y = F.dropout(tg.Tensor(a), rng=tg.Generator(0))
    assert y.data.strides == a.strides
    z = F.dropout(tg.Tensor(np.ascontiguousarray(a)), rng=tg.Generator(0))
    assert y.tolist() == z.tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (4,)])
def test_dtype_and_shape_are_kept(dtype, shape):
    x = tg.ones(shape, dtype=dtype, requires_grad=True)
    y = F.dropout(x, 0.5, rng=stream(0))
    y.sum().backward()
    assert y.shape == shape and y.dtype == x.grad.dtype == dtype


def test_on_the_strict_stand_in_for_cupy():
    with strict_cupy():
        x = tg.ones(100, device="cuda", requires_grad=True)
        y = F.dropout(x)
        (d,) = tg.grad(y.sum(), [x])
        assert set(y.tolist()) == {0.0, 2.0} and d.tolist() == y.tolist()


def test_errors_name_what_came():
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"dropout: expected p in \[0, 1\], got {p}"):
            F.dropout(tg.ones(2), p)
    with pytest.raises(TypeError, match="expected a floating tensor, got int64"):
        F.dropout(tg.tensor([1]))
    with pytest.raises(TypeError, match="inplace"):
        F.dropout(tg.ones(2), inplace=True)
    with pytest.raises(TypeError, match="rng: expected a tinygen.Generator, got int"):
        F.dropout(tg.ones(2), rng=0)
