"""The denoiser of points: its formula, and that time and class reach its output."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.models.diffusion import MLPDenoiser
from tinygen_tests.draws import stream
from tinygen_tests.judge import host


def test_it_is_its_formula():
    net = MLPDenoiser(3, width=6, depth=2, num_classes=2, rng=stream(0)).to(tg.float64)
    x, y = tg.randn(4, 3, rng=stream(1), dtype=tg.float64), [0, 1, 2, 0]
    t = tg.tensor([1.0, 2, 500, 999], dtype=tg.float64)
    silu = lambda a: a / (1 + np.exp(-a))
    dense = lambda layer, a: a @ host(layer.weight).T + (0 if layer.bias is None else host(layer.bias))
    e = silu(host(net.condition(t, tg.tensor(y))))
    h = dense(net.enter, host(x))
    for look, tell, add in zip(net.look, net.tell, net.add, strict=True):
        h = h + dense(add, silu(dense(look, h) + dense(tell, e)))
    np.testing.assert_allclose(host(net(x, t, tg.tensor(y))), dense(net.leave, h), rtol=1e-10)


def test_no_class_is_the_null_class_and_the_time_matters():
    net = MLPDenoiser(2, width=16, num_classes=3, rng=stream(0))
    x = tg.randn(2, 2, rng=stream(1))
    t = tg.tensor([5.0, 600.0])
    np.testing.assert_allclose(host(net(x, t)), host(net(x, t, tg.tensor([3, 3]))), rtol=1e-6)
    assert np.abs(host(net(x, t)) - host(net(x, t + 100))).max() > 1e-4
    assert net(x, t).dtype == tg.float32


@pytest.mark.parametrize("make, message", [
    (lambda: MLPDenoiser(0), "positive numbers and an even width, got 0, 128, 3"),
    (lambda: MLPDenoiser(2, width=5), "even width, got 2, 5, 3"),
    (lambda: MLPDenoiser(2)(tg.zeros(4, 3), tg.zeros(4)), r"\(N, 2\), got \(4, 3\)"),
    (lambda: MLPDenoiser(2)(tg.zeros(4, 2), tg.zeros(4), tg.tensor([0] * 4)), "made without classes"),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
