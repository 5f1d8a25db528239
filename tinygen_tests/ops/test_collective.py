"""Sums over processes: their derivatives, twice."""

import pytest

import tinygen as tg
from tinygen.ops.collective import all_sum
from tinygen_tests.ranks import on_ranks

pytestmark = pytest.mark.cpu_only("the ranks compare NumPy arrays")


def test_a_sum_over_ranks_is_differentiated_twice():
    """L = (Σ_r x_r³)² on every rank; Λ = W L, ∂Λ/∂x_r = 2 W S 3x_r² with S = Σ x³."""

    def f(ranks):
        x = tg.tensor(float(ranks.rank + 1), dtype="float64", requires_grad=True)
        s = all_sum(x**3, ranks)
        (g,) = tg.grad(s * s, x, create_graph=True)
        (h,) = tg.grad(g, x)  # of Σ_r g_r
        return g.item(), h.item()

    W, S = 2, 1 + 8
    for rank, (g, h) in enumerate(on_ranks(2, f)):
        x = rank + 1
        assert g == 2 * W * S * 3 * x**2
        # Σ_s ∂g_s/∂x_r = Σ_s 2W·3x_s²·3x_r² + 2WS·6x_r
        assert h == pytest.approx(2 * W * 3 * x**2 * 3 * (1 + 4) + 2 * W * S * 6 * x)
