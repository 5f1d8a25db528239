"""The VQ-VAE: its loss by hand, what each part trains, sizes, and that it learns and draws."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.models import ConvVQVAE
from tinygen_tests.draws import stream
from tinygen_tests.judge import host, torch
from tinygen_tests.nn.beside_torch import to_theirs

SHAPE = (1, 8, 8)


def make(shape=SHAPE, **options):
    return ConvVQVAE(shape, **{"widths": (6,), "codes": 9, "dim": 4, "rng": stream(0)} | options)


def digits(n=64):
    return tg.tensor(tg.data.digits("train").images[:n])


@pytest.mark.parametrize("shape, widths, inner", [
    ((1, 8, 8), (6,), (4, 4)), ((1, 28, 28), (4, 6), (7, 7)), ((3, 9, 7), (4, 6), (3, 2)),
])
@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_every_size_comes_back_in_its_own_shape(shape, widths, inner, decay, likelihood):
    model = make(shape, widths=widths, decay=decay, likelihood=likelihood)
    x = tg.rand(2, *shape, rng=stream(1))
    assert model.codes(x).shape == (2, *inner) and model.codes(x).dtype == tg.int64
    for y in (model(x), model.sample(2, rng=stream(0)), model.decode(model.codes(x))):
        assert y.shape == x.shape and y.dtype == tg.float32
        assert ((y > 0) & (y < 1)).all()
    np.testing.assert_allclose(host(model(x).detach()), host(model.decode(model.codes(x)).detach()), rtol=1e-4)
    model.training_step(x, rng=stream(0))["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.reconstruction_error(x).shape == (2,)


def test_the_loss_is_the_papers():
    """Proves: VQVAE."""
    model = make(decay=None, commitment=0.4).double()
    x = digits(5).to(tg.float64)
    terms = {name: value.item() for name, value in model.training_step(x).items()}
    z, k, e = host(model.encode(x).detach()), host(model.codes(x)), host(model.quantizer.weight)
    squares = ((z - e[k]) ** 2).sum() / 5
    mean, t = host(model(x).detach()), host(x)
    reconstruction = -(t * np.log(mean) + (1 - t) * np.log(1 - mean)).sum() / 5
    assert terms["codebook"] == pytest.approx(squares, rel=1e-9)
    assert terms["commitment"] == pytest.approx(squares, rel=1e-9)
    assert terms["reconstruction"] == pytest.approx(reconstruction, rel=1e-9)
    assert terms["loss"] == pytest.approx(reconstruction + 1.4 * squares + terms["prior"], rel=1e-9)
    assert 1 <= terms["perplexity"] <= 9


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_every_part_is_its_formula(likelihood):
    """Three convolutions down, the nearest code, four back, written with PyTorch's and NumPy's operations.

    Proves: ConvVQVAE, VQVAE.encode, VQVAE.codes, VQVAE.decode, VQVAE.reconstruction_error.
    """
    model = make((1, 7, 10), likelihood=likelihood).double()
    f, x = torch.nn.functional, tg.rand(3, 1, 7, 10, rng=stream(1), dtype=tg.float64)
    w, b, v, c, u, d = to_theirs(dict(model.encoder.named_parameters())).values()
    h = f.silu(f.conv2d(torch.from_numpy(host(x).copy()), w, b, 2, 1))
    z = f.conv2d(f.silu(f.conv2d(h, v, c, 1, 1)), u, d).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(host(model.encode(x)), z, rtol=1e-9, atol=1e-12)

    e = z.reshape(-1, 4)[::7][:9]  # each of them in use
    with tg.no_grad():
        model.quantizer.weight.copy_(tg.tensor(e))
    k = ((z[..., None, :] - e) ** 2).sum(-1).argmin(-1)
    np.testing.assert_array_equal(host(model.codes(x)), k)
    assert len(np.unique(k)) == 9

    w, b, v, c, u, d = to_theirs(dict(model.decoder.named_parameters())).values()
    h = f.silu(f.conv2d(torch.from_numpy(e[k]).permute(0, 3, 1, 2), w, b, 1, 1))
    a = f.conv_transpose2d(f.silu(f.conv2d(h, v, c, 1, 1)), u, d, 2, 1, (0, 1))
    mean = a.sigmoid().numpy()
    np.testing.assert_allclose(host(model.decode(tg.tensor(k))), mean, rtol=1e-9)
    error = ((mean - host(x)) ** 2).reshape(3, -1).mean(1)
    np.testing.assert_allclose(host(model.reconstruction_error(x)), error, rtol=1e-9)


def test_the_priors_loss_trains_the_prior_alone():
    model = make(decay=None)
    k = model.codes(digits(5)).flatten(1)
    (-model.prior.log_prob(k).mean()).backward()
    own = {id(p) for p in model.prior.parameters()}
    assert all((p.grad is not None) == (id(p) in own) for p in model.parameters())


def test_averages_move_while_training_only():
    model = make(decay=0.9)
    before = host(model.quantizer.weight).copy()
    model.eval()
    model.training_step(digits(5), rng=stream(0))
    np.testing.assert_array_equal(host(model.quantizer.weight), before)
    model.train()
    model.training_step(digits(5), rng=stream(0))
    assert not np.array_equal(host(model.quantizer.weight), before)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_it_learns_to_rebuild_with_its_alphabet(decay):
    x = digits()
    model = make(decay=decay)
    adam = tg.optim.Adam(model.parameters(), lr=1e-2)
    rng = stream(1)
    for _ in range(150):
        adam.zero_grad()
        terms = model.training_step(x, rng=rng)
        terms["loss"].backward()
        adam.step()
    flat = (x - x.mean(0)).square().mean().item()
    assert model.reconstruction_error(x).mean().item() < 0.65 * flat
    assert terms["perplexity"].item() > (2 if decay is None else 3)  # by gradient, some codes are never found
    assert terms["prior"].item() < 0.8 * 16 * np.log(9), "the prior knows no more than the number of codes"
    np.testing.assert_array_equal(host(model.sample(4, rng=stream(2))), host(model.sample(4, rng=stream(2))))


def test_errors_name_what_came():
    model = make()
    with pytest.raises(ValueError, match=r"expected images of shape \(N, 1, 8, 8\), got \(2, 1, 9, 9\)"):
        model(tg.zeros(2, 1, 9, 9))
    with pytest.raises(ValueError, match=r"expected codes of shape \(N, 4, 4\), got \(2, 3, 4\)"):
        model.decode(tg.zeros(2, 3, 4, dtype=tg.int64))
    for call in (lambda: model.training_step(digits(2), tg.tensor([0, 1])), lambda: model.sample(2, 1)):
        with pytest.raises(ValueError, match="y was given, but this model is told no classes"):
            call()
    with pytest.raises(ValueError, match="commitment ≥ 0"):
        make(commitment=-1)
    with pytest.raises(ValueError, match="cannot be halved 4 times"):
        make(widths=(2, 2, 2, 2))
    with pytest.raises(ValueError, match="expected positive widths"):
        make(widths=())
    other = make(codes=5)
    with pytest.raises(ValueError, match="the prior is of 16 codes out of 5, the maps are of 4×4 = 16 codes out of 9"):
        type(model).__mro__[1](model.encoder, model.decoder, model.quantizer, other.prior, SHAPE, (4, 4))
