"""The networks: shapes for any size, the second argument, and sizes that make no sense."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.models.vae.networks import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder, halved
from tinygen_tests.draws import stream
from tinygen_tests.judge import host

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
