from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn
from tinygen.nn.utils import parameters_to_vector, vector_to_parameters

pytestmark = pytest.mark.cpu_only("about NumPy memory; test_on_a_gpu.py runs there")


def test_there_and_back():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    vector = parameters_to_vector(net.parameters())
    assert vector.shape == (11,)
    np.testing.assert_array_equal(vector.data, np.concatenate([p.data.ravel() for p in net.parameters()]))
    arrays = [p.data for p in net.parameters()]
    new = tg.Tensor(np.arange(11, dtype="float32"))
    loss = net(tg.ones(1, 3)).sum()
    vector_to_parameters(new, net.parameters())
    np.testing.assert_array_equal(parameters_to_vector(net.parameters()).data, new.data)
    np.testing.assert_array_equal(net[0].weight.data, [[0, 1, 2], [3, 4, 5]])
    assert all(p.data is a and not np.shares_memory(a, new.data) for p, a in zip(net.parameters(), arrays))
    with pytest.raises(RuntimeError, match="written to in place"):
        loss.backward()


def test_the_vector_is_differentiable():
    net = nn.Linear(2, 2)
    (parameters_to_vector(net.parameters()) ** 2).sum().backward()
    np.testing.assert_allclose(net.weight.grad.data, 2 * net.weight.data)


def test_mistakes():
    net = nn.Linear(2, 2)
    before = [p.data.copy() for p in net.parameters()]
    with pytest.raises(ValueError, match="6 numbers"):
        vector_to_parameters(tg.ones(5), net.parameters())
    with pytest.raises(ValueError, match="float64"):
        vector_to_parameters(tg.ones(6, dtype="float64"), net.parameters())
    with pytest.raises(TypeError, match="ndarray"):
        vector_to_parameters(np.ones(6), net.parameters())
    with pytest.raises(ValueError, match="no parameters"):
        parameters_to_vector([])
    for p, b in zip(net.parameters(), before):
        np.testing.assert_array_equal(p.data, b)
