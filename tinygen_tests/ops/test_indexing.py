"""Indexing: PyTorch's values and gradients, NumPy's index expressions, places named twice, errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tinygen.backend import is_array
from tinygen.op import registry
from tinygen.ops import indexing
from tinygen.ops.indexing import put
from tinygen_tests.draws import examples, filled_shapes, numbers, seeds
from tinygen_tests.judge import judge, same, torch

X = numbers(0, (4, 3, 5))
MASK = np.random.default_rng(1).random((4, 3, 5)) < 0.4


def to_torch(index):
    """Our index expression as PyTorch's: arrays as its tensors."""
    if isinstance(index, tuple):
        return tuple(to_torch(part) for part in index)
    if isinstance(index, tg.Tensor):
        return torch.from_numpy(index.numpy().copy())
    return torch.from_numpy(index) if isinstance(index, np.ndarray) else index


INDICES = {
    "integer": 1,
    "negative integer": -1,
    "integers": (1, -1, 0),
    "slice": slice(1, 3),
    "slice with a step": (slice(None), slice(None, None, 2), slice(1, None, 3)),
    "empty slice": slice(2, 2),
    "slice beyond the end": slice(2, 100),
    "ellipsis": (..., 2),
    "ellipsis alone": ...,
    "nothing": (),
    "None": (None, 1, None, slice(None), None),
    "integer array": np.array([0, 2, 2, -1]),
    "integer matrix": np.array([[0, 2], [3, 3]]),
    "integer list": [0, 2, 2],
    "lists": ([0, 2, 2], [1, 1, 1]),
    "int32": np.array([3, 0], dtype="int32"),
    "no integers": np.zeros(0, dtype="int64"),
    "empty list": [],
    "0-d integer array": np.array(2),
    "Tensor": tg.tensor([1, 1, 3]),
    "0-d Tensor": tg.tensor(2),
    "Tensors": (tg.tensor([1, 1, 3]), tg.tensor([0, 0, 2])),
    "Tensors that broadcast": (tg.tensor([[1], [2]]), tg.tensor([0, 0, 2])),
    "array after a slice": (slice(None), np.array([2, 0, 2])),
    "arrays around a slice": (np.array([1, 1]), slice(None), np.array([4, 4])),
    "arrays side by side": (slice(None), np.array([1, 1]), np.array([4, 4])),
    "array, integer, slice": (np.array([1, 1]), 0, slice(None, 2)),
    "integer, slice, array": (0, slice(None), np.array([1, 1])),
    "slice, array, slice, integer": (slice(None), np.array([1, 1]), slice(None, None, 2)),
    "integer, slice, mask": (0, slice(None), MASK[0, 0]),
    "integer, ellipsis, Tensor": (tg.tensor(1), ..., tg.tensor([1, 1])),
    "integer, None, array": (1, None, np.array([2, 1])),
    "array and None": (np.array([1, 1]), None),
    "array and ellipsis": (..., np.array([4, 4, 0])),
    "mask": MASK,
    "mask as Tensor": tg.tensor(MASK),
    "mask of one axis": MASK[:, 0, 0],
    "mask of two axes": MASK[:, :, 0],
    "mask after a slice": (slice(None), MASK[0, :, 0]),
    "mask and slice": (MASK[:, :, 0], slice(1, 3)),
    "mask and integer": (MASK[:, 0, 0], 1),
    "mask of nothing": np.zeros(4, dtype=bool),
    "mask list": [True, False, False, True],
    "mask and array": (np.array([True, False, False, True]), np.array([1, 1])),
    "True": True,
    "False": False,
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
def test_index_expressions_agree_with_pytorch(index):
    judge(lambda x: x[index], lambda x: x[to_torch(index)], X)


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
def test_put_is_the_adjoint_of_getitem(index):
    y = numbers(2, tg.tensor(X)[index].shape)
    tg.testing.check_adjoint(lambda x: x[index], lambda y: put(y, index, X.shape), X, y)


@pytest.mark.parametrize("index", [slice(None, None, -1), (slice(3, 0, -2), ..., slice(None, None, -3))], ids=str)
def test_negative_steps_read_backwards_as_in_numpy(index):
    # PyTorch refuses them. Here they are NumPy's, and differentiable.
    x = tg.tensor(X, requires_grad=True)
    y = x[index]
    np.testing.assert_array_equal(y.detach().numpy(), X[index])
    g = numbers(1, y.shape)
    expected = np.zeros_like(X)
    expected[index] = g
    np.testing.assert_array_equal(tg.grad(y, x, tg.tensor(g))[0].numpy(), expected)
    tg.testing.check_grad(lambda x: x[index], X)


@st.composite
def expressions(draw, shape):
    parts, arrays = [], draw(st.integers(1, 3))
    for n in shape[: draw(st.integers(0, len(shape)))]:
        kind = draw(st.sampled_from(["int", "slice", "array", "none"]))
        if kind == "int":
            parts.append(draw(st.integers(-n, n - 1)))
        elif kind == "array":
            parts.append(np.array(draw(st.lists(st.integers(-n, n - 1), min_size=arrays, max_size=arrays))))
        else:
            if kind == "none":
                parts.append(None)
            edge = st.one_of(st.none(), st.integers(-n - 1, n + 1))
            parts.append(slice(draw(edge), draw(edge), draw(st.sampled_from([None, 1, 2, 3]))))
    if draw(st.booleans()):
        parts.append(...)
    return tuple(parts)


@examples(60)
@given(shape=filled_shapes, seed=seeds, data=st.data())
def test_drawn_index_expressions_agree_with_pytorch(shape, seed, data):
    index = data.draw(expressions(shape))
    judge(lambda x: x[index], lambda x: x[to_torch(index)], numbers(seed, shape))


def test_a_place_named_twice_receives_both_gradients():
    x = tg.zeros(3, requires_grad=True)
    for index in ([1, 1, 1], tg.tensor([1, 1, 1]), np.array([1, -2, 1])):
        (g,) = tg.grad(x[index], x, tg.tensor([1.0, 10.0, 100.0]))
        assert g.tolist() == [0, 111, 0]


@examples(40)
@given(shape=filled_shapes.filter(len), seed=seeds, data=st.data())
def test_gather_and_scatter_add_agree_with_pytorch(shape, seed, data):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = [data.draw(st.integers(1, n)) for n in shape]
    size[dim] = data.draw(st.integers(1, 5))
    rng = np.random.default_rng(seed)
    index = rng.integers(0, shape[dim], size)
    x, source = numbers(seed, shape), numbers(seed + 1, size)
    judge(lambda x, i: tg.gather(x, dim, i), lambda x, i: torch.gather(x, dim, i), x, index)
    f = lambda x, i, s: x.scatter_add(dim, i, s)
    judge(f, f, x, index, source)
    longer = np.concatenate([source, source], data.draw(st.integers(0, len(shape) - 1)))
    np.testing.assert_array_equal(
        f(tg.tensor(x), tg.tensor(index), tg.tensor(longer)).numpy(), f(*map(tg.tensor, (x, index, source))).numpy()
    )
    tg.testing.check_adjoint(
        lambda x: x.gather(dim, tg.tensor(index)),
        lambda y: tg.zeros(shape, dtype="float64").scatter_add(dim, tg.tensor(index), y),
        x,
        numbers(seed, size),
    )


@examples(30)
@given(shape=filled_shapes.filter(len), seed=seeds, data=st.data())
def test_index_select_agrees_with_pytorch(shape, seed, data):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    index = np.random.default_rng(seed).integers(0, shape[dim], data.draw(st.integers(0, 4)))
    x = numbers(seed, shape)
    judge(lambda x, i: x.index_select(dim, i), lambda x, i: x.index_select(dim, i), x, index)
    judge(lambda x, i: x.index_select(dim, i), lambda x, i: x.index_select(dim, i), x, index[:1].reshape(-1)[:1])


def test_gather_of_a_scalar_and_select_by_a_scalar():
    judge(lambda x, i: tg.gather(x, 0, i), lambda x, i: torch.gather(x, 0, i), np.array(2.0), np.array(0))
    judge(lambda x, i: x.index_select(1, i), lambda x, i: x.index_select(1, i), X, np.array(2))


def test_masked_fill_agrees_with_pytorch():
    for value in (0, -1.5, float("-inf")):
        f = lambda x, m, value=value: x.masked_fill(m, value)
        judge(f, f, X, MASK, order=1)
    judge(lambda x, m: x.masked_fill(m, 2.0), lambda x, m: x.masked_fill(m, 2.0), X, MASK[:, :1, 0:1])
    assert tg.ones(2).masked_fill(tg.tensor([True, False]), 0).dtype == tg.float32


@pytest.mark.parametrize("name", ["tril", "triu"])
@pytest.mark.parametrize("diagonal", [-7, -1, 0, 1, 7])
def test_tril_triu_agree_with_pytorch(name, diagonal):
    f = lambda x: getattr(x, name)(diagonal)
    judge(f, f, X)
    for dtype in ("bool", "int64", "float16"):
        x = np.ones((3, 4), dtype=dtype)
        same(f(tg.tensor(x)), f(torch.from_numpy(x)))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32"])
def test_picking_keeps_the_dtype(dtype):
    x = tg.tensor(np.ones((3, 2), dtype=dtype))
    at = tg.tensor([[0, 1], [1, 0]])
    for y in (x[0], x[0, 0], x[at], x[x == 1], x.gather(0, at), x.index_select(1, at[0]), x.T[0]):
        assert isinstance(y, tg.Tensor) and y.dtype == np.dtype(dtype) and is_array(y.data)
    if dtype.startswith("float"):
        x.requires_grad_()
        assert tg.grad((x[at] * 1).sum(), x)[0].dtype == np.dtype(dtype)


def test_rows_of_an_embedding_receive_only_their_gradients():
    table = tg.tensor(numbers(0, (5, 3)), requires_grad=True)
    (table[tg.tensor([[1, 4], [4, 4]])] * 2).sum().backward()
    assert table.grad.tolist() == [[0] * 3, [2] * 3, [0] * 3, [0] * 3, [6] * 3]


def test_an_index_tensor_may_be_rewritten_after_its_use():
    x = tg.zeros(3, requires_grad=True)
    at = tg.tensor([0, 0])
    y = x[at].sum()
    at[0] = 2
    at.copy_(1)
    y.backward()
    assert x.grad.tolist() == [2, 0, 0]


@pytest.mark.parametrize("index", [(0, slice(None), [1, 3]), (slice(None), [2, 0], slice(1, 3)), (1, None, [2, 1])])
def test_writing_places_axes_as_reading_does(index):
    x, y = tg.tensor(X), torch.from_numpy(X.copy())
    value = numbers(5, x[index].shape)
    x[index] = tg.tensor(value)
    y[index] = torch.from_numpy(value)
    same(x, y)


def test_iteration_reads_row_by_row():
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    a, b = x
    (a * 2 + b).sum().backward()
    assert x.grad.tolist() == [[2, 2], [1, 1]]


# --------------------------------------------------------------------------------------------- errors


WRAPS = pytest.mark.cpu_only("on a GPU integer arrays wrap around")


@pytest.mark.parametrize(
    "index, message",
    [
        (4, "out of bounds"),
        ((0, 0, 0, 0), "too many indices"),
        pytest.param(np.array([0, 4]), "out of bounds", marks=WRAPS),
        (tg.tensor([0.0]), "an index is integer or boolean, this one is float32"),
        (np.array([0.5]), "an index is integer or boolean"),
        (0.5, "only integers"),
        ("x", "only integers"),
        ((..., ...), "ellipsis"),
        (np.ones(3, dtype=bool), "boolean index"),
        ((np.array([0, 1]), np.array([0, 1, 2])), "broadcast"),
    ],
    ids=str,
)
def test_indices_that_do_not_fit_are_refused(index, message):
    with pytest.raises(IndexError, match=rf"(?s){message}"):
        tg.tensor(X)[index]


INDEX = tg.tensor([[0, 1]])  # made on the CPU, in every run: an index may live there


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: x.gather(2, INDEX), IndexError, "gather: dim=2"),
        (lambda x: x.gather(0, INDEX[0]), ValueError, r"index of shape \(2,\) does not fit x of shape \(2, 3\)"),
        (lambda x: x.gather(1, tg.tensor([[0], [0], [0]])), ValueError, "none but axis 1 may be longer"),
        pytest.param(lambda x: x.gather(1, INDEX + 3), IndexError, "out of bounds", marks=WRAPS),
        (lambda x: x.gather(1, INDEX.float()), TypeError, "gather: expected the index as a Tensor of integers, got f"),
        (lambda x: x.gather(1, INDEX == 0), TypeError, "gather: expected the index as a Tensor of integers, got bool"),
        (lambda x: x.gather(1, [[0]]), TypeError, "gather: expected the index as a Tensor of integers, got list"),
        (lambda x: x.scatter_add(1, INDEX, x[:, :1]), ValueError, r"src of shape \(2, 1\) is smaller than index"),
        (lambda x: x.scatter_add(1, INDEX[0], x[0]), ValueError, "does not fit"),
        (lambda x: x.scatter_add(1, INDEX == 0, x), TypeError, "got bool"),
        (lambda x: x.scatter_add(2, INDEX, x), IndexError, "scatter_add: dim=2"),
        (lambda x: x.index_select(0, INDEX), ValueError, r"index of one axis, got shape \(1, 2\)"),
        (lambda x: x.index_select(0, tg.tensor([True, False])), TypeError, "got bool"),
        (lambda x: x.index_select(2, INDEX[0]), IndexError, "index_select: dim=2"),
        (lambda x: x[0].tril(), ValueError, "at least two axes"),
        (lambda x: x.masked_fill(tg.tensor([True, False]), 0), ValueError, "broadcast"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(tg.ones(2, 3))


def test_every_op_of_the_file_is_tested_here():
    assert {o.name for o in registry.values() if o.module == indexing.__name__} == {"getitem", "put"}
