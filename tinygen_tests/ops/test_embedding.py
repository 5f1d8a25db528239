"""embedding and one_hot: PyTorch's values and gradients, repeated and padding rows, the adjoint identity, errors."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.nn import functional as F
from tinygen.ops.indexing import put
from tinygen.testing import check_adjoint, check_grad, strict_cupy
from tinygen_tests.draws import numbers
from tinygen_tests.judge import judge, same, torch


@pytest.mark.parametrize("shape", [(), (0,), (6,), (2, 3), (2, 0, 3)])
@pytest.mark.parametrize("padding_idx", [None, 0, 3, -1, -5])
def test_embedding_agrees_with_pytorch(shape, padding_idx):
    index = np.asarray(np.random.default_rng(0).integers(0, 5, shape))
    judge(
        lambda i, w: F.embedding(i, w, padding_idx),
        lambda i, w: torch.nn.functional.embedding(i, w, padding_idx),
        index,
        numbers(1, (5, 3)),
        order=2 if index.size else 1,  # PyTorch's second order fails for an empty index
    )


def test_embedding_gradients_without_pytorch():
    index = tg.tensor([[0, 2, 2], [4, 2, 0]])
    check_grad(lambda w: F.embedding(index, w), numbers(0, (5, 3)))
    check_adjoint(
        lambda w: F.embedding(index, w),
        lambda g: put(g, index, (5, 3)),
        numbers(1, (5, 3)),
        numbers(2, (2, 3, 3)),
    )


def test_a_row_looked_up_twice_gets_both_gradients_and_a_padding_row_none():
    w = tg.ones(3, 1, requires_grad=True)
    F.embedding(tg.tensor([1, 2, 1]), w).backward(tg.tensor([[1.0], [10.0], [100.0]]))
    assert w.grad.tolist() == [[0], [101], [10]]
    w.grad = None
    F.embedding(tg.tensor([1, 2, 1]), w, padding_idx=1).backward(tg.tensor([[1.0], [10.0], [100.0]]))
    assert w.grad.tolist() == [[0], [0], [10]]


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
@pytest.mark.parametrize("num_classes", [-1, 5, 7])
def test_one_hot_agrees_with_pytorch(shape, num_classes):
    index = np.asarray(np.random.default_rng(0).integers(0, 5, shape))
    ours = F.one_hot(tg.Tensor(index), num_classes)
    same(ours, torch.nn.functional.one_hot(torch.from_numpy(index), num_classes))
    assert ours.dtype == tg.int64 and not ours.requires_grad


def test_one_hot_of_nothing():
    assert F.one_hot(tg.zeros(0, 2, dtype="int64"), 3).shape == (0, 2, 3)


def test_on_the_strict_stand_in_for_cupy():
    with strict_cupy():
        index = tg.tensor([1, 2, 1], device="cuda")
        w = tg.ones(3, 2, device="cuda", requires_grad=True)
        y = F.embedding(index, w, padding_idx=2)
        (d,) = tg.grad((y * y).sum(), [w], create_graph=True)
        tg.grad(d.sum(), [w])
        assert d.tolist() == [[0, 0], [4, 4], [0, 0]]
        assert F.one_hot(index, 3).tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]


@pytest.mark.cpu_only("a GPU does not look at the indices")
def test_indices_outside_are_named():
    w = tg.zeros(3, 2)
    for bad in (3, -1):
        with pytest.raises(IndexError, match=rf"embedding: index {bad} is outside \[0, 3\)"):
            F.embedding(tg.tensor([0, bad]), w)
        with pytest.raises(IndexError, match=rf"one_hot: index {bad} is outside \[0, 3\)"):
            F.one_hot(tg.tensor([0, bad]), 3)


def test_errors_name_what_came():
    w = tg.zeros(3, 2)
    with pytest.raises(TypeError, match="embedding: expected input to be an integer tensor, got float32"):
        F.embedding(tg.zeros(2), w)
    with pytest.raises(TypeError, match="one_hot: expected tensor to be an integer tensor, got bool"):
        F.one_hot(tg.tensor([True]))
    with pytest.raises(ValueError, match=r"expected weight \(V, D\).*got \(3,\)"):
        F.embedding(tg.tensor([0]), tg.zeros(3))
    for bad in (3, -4):
        with pytest.raises(ValueError, match=f"padding_idx={bad} is not one of the 3 rows"):
            F.embedding(tg.tensor([0]), w, bad)
    for bad in (0, -2):
        with pytest.raises(ValueError, match=f"num_classes ≥ 1, or −1 to find it, got {bad}"):
            F.one_hot(tg.tensor([0]), bad)
    with pytest.raises(ValueError, match="cannot be found from an empty tensor"):
        F.one_hot(tg.zeros(0, dtype="int64"))
    for left_out in ("max_norm", "scale_grad_by_freq", "sparse"):
        with pytest.raises(TypeError, match=left_out):
            F.embedding(tg.tensor([0]), w, **{left_out: True})
