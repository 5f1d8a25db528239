"""Vector quantisation: the nearest code, gradients that go straight through, both ways to move the codebook."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.models.vae.quantizer import VectorQuantizer, perplexity
from tinygen_tests.draws import numbers, stream
from tinygen_tests.judge import host


def vectors(*shape, seed=1):
    return tg.tensor(numbers(seed, shape), requires_grad=True)


def test_each_vector_gets_the_nearest_code():
    """Proves: VectorQuantizer, VectorQuantizer.nearest, VectorQuantizer.lookup."""
    q = VectorQuantizer(7, 3, rng=stream(0)).double()
    z = vectors(4, 5, 3)
    found = q(z)
    e = host(q.weight)
    expected = ((host(z)[..., None, :] - e) ** 2).sum(-1).argmin(-1)
    np.testing.assert_array_equal(host(found.codes), expected)
    np.testing.assert_array_equal(host(q.nearest(z)), expected)
    np.testing.assert_array_equal(host(q.lookup(tg.tensor(expected))), e[expected])
    np.testing.assert_allclose(host(found.z_q), e[expected], rtol=1e-12)
    squares = ((host(z) - e[expected]) ** 2).sum(-1)
    for part in (found.codebook, found.commitment):
        np.testing.assert_allclose(host(part), squares, rtol=1e-12)


def test_gradients_go_straight_through_and_to_nobody_else():
    q = VectorQuantizer(7, 3, rng=stream(0)).double()
    z = vectors(6, 3)
    g = tg.tensor(numbers(2, (6, 3)))
    (q(z).z_q * g).sum().backward()
    np.testing.assert_array_equal(host(z.grad), host(g))
    assert q.weight.grad is None, "the reconstruction moves the codebook"


def test_the_codebook_loss_moves_the_codes_and_the_commitment_the_vectors():
    q = VectorQuantizer(7, 3, rng=stream(0)).double()
    z = vectors(6, 3)
    found = q(z)
    e, k = host(q.weight), host(found.codes)
    found.commitment.sum().backward()
    np.testing.assert_allclose(host(z.grad), 2 * (host(z) - e[k]), rtol=1e-12)
    assert q.weight.grad is None
    z.grad = None
    q(z).codebook.sum().backward()
    assert z.grad is None
    expected = np.zeros_like(e)
    np.add.at(expected, k, 2 * (e[k] - host(z)))
    np.testing.assert_allclose(host(q.weight.grad), expected, rtol=1e-12)


def test_running_averages_are_their_formula():
    γ = 0.8
    q = VectorQuantizer(3, 2, decay=γ, rng=stream(0)).double()
    z = vectors(30, 2)
    N, m = np.ones(3), host(q.weight).copy()
    for _ in range(4):
        found = q(z)
        k = host(found.codes)
        assert (host(found.codebook) == 0).all()
        n = np.bincount(k, minlength=3)
        total = np.zeros((3, 2))
        np.add.at(total, k, host(z))
        N, m = γ * N + (1 - γ) * n, γ * m + (1 - γ) * total
        assert (N > 0.1 * N.mean()).all(), "the example must not begin anew"
        q.update(z, found.codes, stream(1))
        np.testing.assert_allclose(host(q.weight), m / N[:, None], rtol=1e-10)
    assert not list(q.parameters())
    assert set(q.state_dict()) == {"weight", "count", "total"}


def test_a_code_that_nobody_uses_begins_anew_at_a_vector():
    q = VectorQuantizer(5, 2, decay=0.5, rng=stream(0)).double()
    with tg.no_grad():
        q.weight[4] = tg.tensor([100.0, 100.0], dtype=tg.float64)
    z = vectors(40, 2)
    for _ in range(8):
        q.update(z, q(z).codes, stream(1))
    assert (host(q.weight) < 3).all()
    assert len(set(host(q(z).codes).tolist())) == 5


@pytest.mark.parametrize("decay", [None, 0.9])
def test_the_codebook_finds_the_heaps(decay):
    """Three far heaps, six codes: every vector ends near its code."""
    rng = np.random.default_rng(0)
    heaps = np.array([[4.0, 0.0], [-4.0, 1.0], [0.0, 5.0]])
    z = tg.tensor((heaps[rng.integers(0, 3, 300)] + 0.1 * rng.standard_normal((300, 2))).astype(np.float32))
    q = VectorQuantizer(6, 2, decay, stream(2))
    adam = tg.optim.Adam(q.parameters(), lr=0.1) if decay is None else None
    before = q(z).commitment.mean().item()
    for _ in range(150):
        found = q(z)
        if adam is None:
            q.update(z, found.codes, stream(3))
        else:
            adam.zero_grad()
            found.codebook.mean().backward()
            adam.step()
    after = q(z).commitment.mean().item()
    assert after < (0.1 if adam is None else 0.9 * before), (before, after)


def test_perplexity_counts_the_codes_in_use():
    assert perplexity(tg.tensor([3, 3, 3]), 5).item() == pytest.approx(1, rel=1e-6)
    assert perplexity(tg.tensor([[0, 1], [2, 3]]), 9).item() == pytest.approx(4, rel=1e-6)
    p = np.array([0.5, 0.25, 0.25])
    found = perplexity(tg.tensor([0, 0, 1, 2]), 3).item()
    assert found == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_errors_name_what_came():
    q = VectorQuantizer(4, 3)
    with pytest.raises(ValueError, match=r"expected vectors \(\*, 3\), got \(2, 4\)"):
        q(tg.zeros(2, 4))
    with pytest.raises(RuntimeError, match="learned by gradient"):
        q.update(tg.zeros(2, 3), tg.zeros(2, dtype=tg.int64))
    for options in ({"codes": 0}, {"dim": 0}, {"decay": 1.0}, {"decay": 0.0}):
        with pytest.raises(ValueError, match="VectorQuantizer: expected"):
            VectorQuantizer(**options)
    with pytest.raises(ValueError, match="at least one code"):
        perplexity(tg.zeros(0, dtype=tg.int64), 3)
