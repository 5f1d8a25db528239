"""The networks: their formulas, shapes for any size, the second argument, and sizes that make no sense."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.models.vae.networks import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder, halved
from tinygen_tests.draws import numbers, stream
from tinygen_tests.judge import host, same, torch
from tinygen_tests.nn.beside_torch import to_theirs

PAIRS = {"dense": (DenseEncoder, DenseDecoder), "conv": (ConvEncoder, ConvDecoder)}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 9, 7), (2, 5, 12)])
@pytest.mark.parametrize("classes", [0, 4])
def test_down_to_a_code_and_up_again(kind, shape, classes):
    encoder, decoder = (part(shape, (6, 5), 3, classes, stream(0)) for part in PAIRS[kind])
    y = (tg.eye(4)[:2],) if classes else ()
    code = encoder(tg.rand(2, *shape, rng=stream(1)), *y)
    assert code.shape == (2, 6)
    assert decoder(code[:, :3], *y).shape == (2, *shape)


@pytest.mark.parametrize("kind", PAIRS)
def test_what_is_said_of_the_class_is_heard(kind):
    encoder, decoder = (part((1, 8, 8), (6, 5), 3, 4, stream(0)) for part in PAIRS[kind])
    one, other = tg.eye(4)[:1], tg.eye(4)[1:2]
    x, z = tg.rand(1, 1, 8, 8, rng=stream(1)), tg.randn(1, 3, rng=stream(2))
    assert not np.allclose(host(encoder(x, one).detach()), host(encoder(x, other).detach()))
    assert not np.allclose(host(decoder(z, one).detach()), host(decoder(z, other).detach()))


silu = lambda a: a / (1 + np.exp(-a))


@pytest.mark.parametrize("classes", [0, 4])
def test_dense_networks_are_their_formulas(classes):
    """Proves: DenseEncoder, DenseDecoder."""
    encoder, decoder = (part((2, 3, 2), (6, 5), 3, classes, stream(0)).double() for part in PAIRS["dense"])
    y = np.eye(4)[[1, 3]][:, :classes]
    x, z = numbers(1, (2, 2, 3, 2)), numbers(2, (2, 3))
    for network, given in ((encoder, x), (decoder, z)):
        W1, b1, W2, b2, W, b = (host(p) for p in network.parameters())
        h = np.concatenate([given.reshape(2, -1), y], 1)
        expected = silu(silu(h @ W1.T + b1) @ W2.T + b2) @ W.T + b
        found = network(tg.tensor(given), tg.tensor(y)) if classes else network(tg.tensor(given))
        np.testing.assert_allclose(host(found).reshape(2, -1), expected, rtol=1e-10)
    assert found.shape == (2, 2, 3, 2)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (5, 12)])
@pytest.mark.parametrize("classes", [0, 4])
def test_convolutional_networks_are_their_formulas(size, classes):
    """Proves: ConvEncoder, ConvDecoder."""
    encoder, decoder = (part((2, *size), (6, 5), 3, classes, stream(0)).double() for part in PAIRS["conv"])
    f, inner = torch.nn.functional, halved(size, 2)
    y = torch.eye(4, dtype=torch.float64)[[1, 3], :classes]
    x, z = numbers(1, (2, 2, *size)), numbers(2, (2, 3))
    given = (tg.tensor(y.numpy()),) if classes else ()

    w1, b1, w2, b2, V, c, W, b = to_theirs(dict(encoder.named_parameters())).values()
    h = f.silu(f.conv2d(torch.from_numpy(x), w1, b1, 2, 1))
    h = f.silu(f.conv2d(h, w2, b2, 2, 1)).flatten(1)
    same(encoder(tg.tensor(x), *given), f.linear(f.silu(f.linear(torch.cat([h, y], 1), V, c)), W, b))

    V, c, W, b, w2, b2, w1, b1 = to_theirs(dict(decoder.named_parameters())).values()
    h = f.silu(f.linear(f.silu(f.linear(torch.cat([torch.from_numpy(z), y], 1), V, c)), W, b))
    extra = [tuple(1 - n % 2 for n in side) for side in inner]  # what an even side lacks: 2n − 1 pixels come of n
    h = f.silu(f.conv_transpose2d(h.unflatten(1, (5, *inner[2])), w2, b2, 2, 1, extra[1]))
    same(decoder(tg.tensor(z), *given), f.conv_transpose2d(h, w1, b1, 2, 1, extra[0]))


def test_halved():
    assert halved((9, 28), 2) == [(9, 28), (5, 14), (3, 7)]
    with pytest.raises(ValueError, match="8×8 pixels cannot be halved 4 times"):
        halved((8, 8), 4)


@pytest.mark.parametrize("part", [*PAIRS["dense"], *PAIRS["conv"]])
@pytest.mark.parametrize("sizes", [
    ((1, 8, 8), (), 3), ((1, 8, 8), (4, 0), 3), ((1, 8, 8), (4,), 0), ((0, 8, 8), (4,), 3),
])
def test_sizes_are_positive(part, sizes):
    with pytest.raises(ValueError, match=f"{part.__name__}: expected positive sizes"):
        part(*sizes)
