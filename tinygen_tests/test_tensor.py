"""Tensor: what it is, how it converts, and that writes never falsify a gradient or show through another tensor."""

import copy
import gc
import weakref

import numpy as np
import pytest

import tinygen as tg
from tinygen.tensor import Node, next_number
from tinygen_tests.judge import shares_memory, torch

# --------------------------------------------------------------------------------------------- what it is


def test_a_tensor_wraps_an_array_without_copying():
    a = np.ones((2, 3), dtype="float32")
    x = tg.Tensor(a)
    assert x.data is a
    assert (x.shape, x.ndim, x.dtype, x.device) == ((2, 3), 2, tg.float32, "cpu")
    assert (x.grad, x.requires_grad, x.is_leaf, x.grad_fn) == (None, False, True, None)


@pytest.mark.parametrize("wrong", [1.0, [1.0], None, "x", np.float64(1)])
def test_what_is_no_array_is_refused(wrong):
    with pytest.raises(TypeError, match="expected a NumPy or CuPy array.*tg.tensor"):
        tg.Tensor(wrong)


def test_requires_grad_is_for_floating_leaves():
    x = tg.Tensor(np.ones(2), requires_grad=True)
    assert x.requires_grad and x.is_leaf
    x.requires_grad = False
    assert not x.requires_grad and x.requires_grad_() is x and x.requires_grad
    with pytest.raises(TypeError, match="only floating tensors have gradients, this one is int64"):
        tg.tensor([1]).requires_grad_()
    y = x * 2
    with pytest.raises(RuntimeError, match="use x.detach"):
        y.requires_grad = False
    assert not y.detach().requires_grad and y.detach().is_leaf


def test_there_are_no_other_attributes():
    with pytest.raises(AttributeError):
        tg.ones(2).colour = "red"


def test_lengths_and_sizes():
    x = tg.zeros(2, 3)
    assert (len(x), x.size(), x.size(-1), x.numel(), x.dim()) == (2, (2, 3), 3, 6, 2)
    with pytest.raises(TypeError, match="0-d"):
        len(tg.tensor(1.0))


# -------------------------------------------------------------------------------- to Python and to NumPy


@pytest.mark.cpu_only("about NumPy memory")
def test_numpy_is_a_read_only_view():
    x = tg.ones(3)
    a = x.numpy()
    assert shares_memory(a, x.data)
    with pytest.raises(ValueError, match="read-only"):
        a[0] = 5
    b = x.numpy().copy()
    b[0] = 5
    assert x.tolist() == [1, 1, 1] and x.data.flags.writeable


@pytest.mark.cpu_only("about NumPy memory")
def test_numpy_refuses_what_requires_grad():
    x = tg.ones(3, requires_grad=True)
    for call in (x.numpy, (x * 2).numpy, lambda: np.asarray(x), lambda: x.__dlpack__(), lambda: np.from_dlpack(x)):
        with pytest.raises(RuntimeError, match=r"requires grad.*x.detach\(\)"):
            call()
    assert x.detach().numpy().tolist() == [1, 1, 1]


@pytest.mark.cpu_only("about NumPy memory")
def test_numpy_functions_read_tensors():
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert np.asarray(x).dtype == np.float32 and not np.asarray(x).flags.writeable
    assert np.array(x, dtype="float64").flags.writeable
    np.testing.assert_array_equal(np.stack([x, x]), [[[1, 2], [3, 4]]] * 2)
    np.testing.assert_array_equal(np.from_dlpack(x), x.numpy())
    assert np.allclose(x, [[1, 2], [3, 4]])


@pytest.mark.cpu_only("about NumPy memory")
def test_dlpack_shares_memory_with_pytorch():
    x = tg.ones(3)
    t = torch.from_dlpack(x)
    assert t.data_ptr() == x.data.ctypes.data
    assert tg.Tensor(np.from_dlpack(torch.ones(2))).tolist() == [1, 1]


def test_numbers():
    assert tg.tensor(2.5).item() == 2.5 and isinstance(tg.tensor([[3]]).item(), int) and tg.tensor(True).item() is True
    assert float(tg.tensor(2.5)) == 2.5 and int(tg.tensor(2.5)) == 2 and [10, 20, 30][tg.tensor(2)] == 30
    assert bool(tg.tensor([0.0])) is False and bool(tg.tensor(3))
    assert f"{tg.tensor(2.0):.3f}" == "2.000" and f"{tg.tensor([1, 2])}" == repr(tg.tensor([1, 2]))
    assert tg.tensor([[1, 2]]).tolist() == [[1, 2]] and tg.tensor(1.5).tolist() == 1.5
    assert float(tg.tensor(2.0, requires_grad=True)) == 2


@pytest.mark.parametrize("convert", [lambda x: x.item(), float, int, bool])
@pytest.mark.parametrize("shape", [(2,), (0,), (1, 2)])
def test_several_numbers_are_not_one(convert, shape):
    with pytest.raises(ValueError, match="shape"):
        convert(tg.zeros(shape))


def test_floating_tensors_are_no_index():
    with pytest.raises(TypeError, match="only an integer tensor"):
        [1, 2][tg.tensor(1.0)]


@pytest.mark.cpu_only("elsewhere the device is printed too")
def test_printing():
    assert repr(tg.tensor([1.0, 2.0])) == "tensor([1., 2.])"
    assert repr(tg.tensor([1])) == "tensor([1])" and repr(tg.tensor(True)) == "tensor(True)"
    assert repr(tg.zeros(2, dtype="float64")) == "tensor([0., 0.], dtype=float64)"
    assert repr(tg.zeros(2, 0)) == "tensor([], shape=(2, 0))"
    x = tg.tensor(2.0, requires_grad=True)
    assert repr(x) == "tensor(2., requires_grad=True)" and repr(x * 2) == "tensor(4., grad_fn=<mul>)"
    assert len(repr(tg.zeros(100, 100))) < 2000


def test_iteration():
    assert [row.tolist() for row in tg.tensor([[1, 2], [3, 4], [5, 6]])] == [[1, 2], [3, 4], [5, 6]]
    with pytest.raises(TypeError, match="0-d"):
        iter(tg.tensor(1.0))


def test_comparison_with_anything_else_is_false_and_tensors_are_hashed_by_identity():
    x = tg.ones(2)
    assert (x == None) is False and (x != "x") is True  # noqa: E711
    assert x in {x} and {x: 1}[x] == 1 and hash(x) != hash(tg.ones(2))
    assert (x == x).tolist() == [True, True]


def test_copies():
    x = tg.ones(2, requires_grad=True)
    x.grad = tg.zeros(2)
    y = copy.deepcopy(x)
    assert y.requires_grad and y.is_leaf and not shares_memory(x.data, y.data)
    assert not shares_memory(x.grad.data, y.grad.data)
    with pytest.raises(RuntimeError, match="detach"):
        copy.deepcopy(x * 2)
    z = copy.copy(x.detach())
    z[0] = 5
    assert x.tolist() == [1, 1]


# ---------------------------------------------------------------------------------------------- writing


def test_a_write_stays_in_its_tensor():
    x = tg.zeros(4)
    alias, view, twin = x.detach(), x[1:], x.reshape(2, 2)
    array = x.numpy()
    x[1] = 7
    assert x.tolist() == [0, 7, 0, 0]
    assert alias.tolist() == [0] * 4 and view.tolist() == [0] * 3 and twin.tolist() == [[0, 0]] * 2
    assert array.tolist() == [0] * 4
    view[0] = 3
    twin.copy_(5)
    assert x.tolist() == [0, 7, 0, 0] and alias.tolist() == [0] * 4


def test_a_write_into_a_wrapped_array_stays_in_the_tensor():
    a = np.zeros(3)
    for x in (tg.from_numpy(a), tg.Tensor(a), tg.as_tensor(a)):
        x[0] = 1
        x.copy_(2)
    assert a.tolist() == [0, 0, 0]


@pytest.mark.cpu_only("about NumPy memory")
def test_a_write_to_an_array_of_ones_own_copies_nothing():
    x = tg.zeros(4)
    address = x.data.ctypes.data
    x[1] = 7
    x.copy_(tg.ones(4))
    x[tg.tensor([0, 2])] = tg.tensor([5.0, 6.0])
    assert x.data.ctypes.data == address and x.tolist() == [5, 1, 6, 1]


def test_a_copied_write_keeps_the_order_of_axes_in_memory():
    x = tg.tensor(np.zeros((2, 4, 4, 3), dtype="float32")).permute(0, 3, 1, 2)
    x[0, 0, 0, 0] = 1
    assert x.data.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize(
    "index, value",
    [
        (0, 5.0),
        (slice(1, None), [1.0, 2.0]),
        (..., 3),
        ([0, 2], 4.0),
        (tg.tensor([True, False, True]), [8.0, 9.0]),
        (tg.tensor(1), 6.0),
        (None, [[1.0, 2.0, 3.0]]),
    ],
    ids=str,
)
def test_writing_reads_every_index_expression(index, value):
    x, a = tg.zeros(3), np.zeros(3, dtype="float32")
    x[index] = value
    raw = index.numpy() if isinstance(index, tg.Tensor) else index
    a[raw] = value.numpy() if isinstance(value, tg.Tensor) else value
    assert x.tolist() == a.tolist() and x.dtype == tg.float32


def test_a_tensor_may_be_copied_into_itself():
    x = tg.arange(4)
    x.copy_(x.flip(0))
    assert x.tolist() == [3, 2, 1, 0]
    x[1:] = x[:-1]
    assert x.tolist() == [3, 3, 2, 1]


def test_leaves_are_written_under_no_grad_alone():
    x = tg.zeros(3, requires_grad=True)
    for write in (lambda: x.__setitem__(0, 1.0), lambda: x.copy_(1)):
        with pytest.raises(RuntimeError, match="takes part in a recorded graph.*tg.no_grad"):
            write()
        with tg.no_grad():
            write()
    assert x.tolist() == [1, 1, 1] and x.requires_grad and x.is_leaf


def test_computed_tensors_are_never_written():
    y = tg.zeros(3, requires_grad=True) * 2
    for mode in (tg.no_grad, tg.enable_grad):
        with mode():
            with pytest.raises(RuntimeError, match="tg.where"):
                y[0] = 1.0
            with pytest.raises(RuntimeError, match="tg.where"):
                y.copy_(1)


def test_a_value_that_requires_grad_is_not_written_in_silence():
    x, w = tg.zeros(3), tg.tensor(2.0, requires_grad=True)
    for write in (lambda: x.__setitem__(0, w), lambda: x.copy_(w * 2)):
        with pytest.raises(RuntimeError, match="the value requires grad.*value.detach"):
            write()
        with tg.no_grad():
            write()
    assert x.tolist() == [4, 4, 4]


def test_what_does_not_fit_is_refused_and_nothing_is_written():
    x = tg.zeros(2, 3)
    for error, write in [
        (ValueError, lambda: x.__setitem__(0, tg.ones(2))),
        (ValueError, lambda: x.copy_(tg.ones(4))),
        (ValueError, lambda: x.copy_(tg.ones(2, 2, 3))),
        (IndexError, lambda: x.__setitem__(2, 1.0)),
        (IndexError, lambda: x.__setitem__(tg.tensor([0.0]), 1.0)),
        ((TypeError, ValueError), lambda: x.__setitem__(0, "text")),
    ]:
        with pytest.raises(error):
            write()
    assert x.tolist() == [[0] * 3] * 2


# -------------------------------------------------------------- writes to what a graph needs are found


@pytest.mark.parametrize("write", [lambda t: t.__setitem__(0, 9.0), lambda t: t.copy_(9)], ids=["setitem", "copy_"])
@pytest.mark.parametrize(
    "use, name",
    [
        (lambda x, c: x * c, "mul"),
        (lambda x, c: tg.where(c > 0, x, c) * c, "mul"),
        (lambda x, c: tg.einsum("i,i->i", x, c), "einsum"),
        (lambda x, c: x.unsqueeze(0) @ c.unsqueeze(1) * c, "mul"),
        (lambda x, c: tg.maximum(x, c), "maximum"),
    ],
)
def test_a_constant_written_to_after_its_use_stops_the_sweep(use, name, write):
    x, c = tg.ones(3, requires_grad=True), tg.ones(3)
    y = use(x, c).sum()
    write(c)
    with pytest.raises(RuntimeError, match=rf"backward through <{name}>: a tensor of shape .* written to in place"):
        y.backward()
    assert x.grad is None
    use(x, c).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("use", [lambda x: x * x, lambda x: x + 1, lambda x: tg.cat([x, x]), lambda x: x.exp()])
def test_a_leaf_written_to_after_its_use_stops_the_sweep(use):
    x = tg.ones(3, requires_grad=True)
    y = use(x).sum()
    with tg.no_grad():
        x[0] = 5
    with pytest.raises(RuntimeError, match="written to in place since.*optimiser step"):
        y.backward()
    use(x).sum().backward()


def test_a_constant_used_through_a_view_keeps_the_numbers_it_was_used_with():
    x, c = tg.ones(3, requires_grad=True), tg.ones(3)
    y = x @ c  # through c as a column, which shares c's memory
    c[0] = 9
    y.backward()
    assert x.grad.tolist() == [1, 1, 1]


def test_writes_before_the_use_or_to_others_do_no_harm():
    x, c = tg.ones(3, requires_grad=True), tg.zeros(3)
    c[0] = 2
    with tg.no_grad():
        x[0] = 3
    y = (x * c).sum()
    other = c.detach()
    other[1] = 100
    other.copy_(50)
    twin = x.detach()
    twin[0] = 7
    y.backward()
    assert x.grad.tolist() == [2, 0, 0]


def test_a_result_that_its_own_vjp_needs_is_safe_from_its_detached_twin():
    x = tg.zeros(3, requires_grad=True)
    y = x.exp()
    twin = y.detach()
    twin[0] = 100
    twin.copy_(100)
    y.sum().backward()
    assert x.grad.tolist() == [1, 1, 1]


def test_a_mask_or_index_may_be_rewritten_once_it_was_used():
    x, at = tg.tensor([1.0, 2.0, 3.0], requires_grad=True), tg.tensor([0, 0])
    y = x[at]
    at[0] = 2
    y.sum().backward()
    assert x.grad.tolist() == [2, 0, 0]


# --------------------------------------------------------------------------------------------- memory


def test_tensors_and_nodes_die_without_the_garbage_collector():
    gc.disable()
    try:
        x = tg.ones(3, requires_grad=True)
        y = (x * 2).exp()
        node = weakref.ref(y.grad_fn)
        tensor = weakref.ref(y)
        del y
        assert node() is None and tensor() is None
    finally:
        gc.enable()


def test_nodes_are_numbered_in_the_order_of_recording():
    x = tg.ones(1, requires_grad=True)
    a = x * 2
    b = x * 3
    assert isinstance(a.grad_fn, Node) and a.grad_fn.number < b.grad_fn.number < next_number()
    assert repr(a.grad_fn) == "<mul>" and (a.grad_fn.shape, a.grad_fn.dtype) == ((1,), tg.float32)
