"""Shape ops: PyTorch's values and gradients, the adjoint identity for each, memory, layout, errors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tinygen.op import registry
from tinygen.ops import shape as shape_ops
from tinygen.ops.shape import pad_zeros
from tinygen_tests.draws import examples, filled_shapes, numbers, seeds, shapes
from tinygen_tests.judge import judge, same, torch

with_axes = shapes.filter(len)


def dims(shape):
    return st.integers(-len(shape), len(shape) - 1)


# ------------------------------------------------------------------------------ shape, order of axes


@examples(40)
@given(shape=shapes, seed=seeds, data=st.data())
def test_reshape_and_view_agree_with_pytorch(shape, seed, data):
    n = math.prod(shape)
    options = [(n,), (1, n, 1), (*shape, 1), (1, *shape)]
    if n:
        options += [(-1,), (-1, *shape), (n, -1), (*shape[:1], -1)]
    size = data.draw(st.sampled_from(options))
    x = numbers(seed, shape)
    judge(lambda x: x.reshape(size), lambda x: x.reshape(size), x)
    judge(lambda x: x.view(*size), lambda x: x.reshape(*size), x)


@examples(30)
@given(shape=shapes, seed=seeds, data=st.data())
def test_flatten_and_unflatten_agree_with_pytorch(shape, seed, data):
    x = numbers(seed, shape)
    if not shape:
        judge(tg.flatten, lambda x: torch.flatten(x), x)
        return
    a, b = sorted((data.draw(st.integers(0, len(shape) - 1)), data.draw(st.integers(0, len(shape) - 1))))
    b = data.draw(st.sampled_from([b, b - len(shape)]))
    judge(lambda x: x.flatten(a, b), lambda x: x.flatten(a, b), x)
    judge(lambda x: x.flatten(start_dim=a), lambda x: x.flatten(start_dim=a), x)
    d = data.draw(dims(shape))
    sizes = data.draw(st.sampled_from([(1, shape[d]), (shape[d], 1), [1, shape[d], 1], (-1, 1), (1, -1)]))
    judge(lambda x: x.unflatten(d, sizes), lambda x: x.unflatten(d, sizes), x)


def test_unflatten_splits_an_axis():
    judge(lambda x: x.unflatten(1, (2, -1)), lambda x: x.unflatten(1, (2, -1)), numbers(0, (3, 6, 2)))


@examples(40)
@given(shape=shapes, seed=seeds, data=st.data())
def test_permutations_agree_with_pytorch(shape, seed, data):
    x = numbers(seed, shape)
    n = len(shape)
    order = [d - n * data.draw(st.booleans()) for d in data.draw(st.permutations(range(n)))]
    judge(lambda x: x.permute(order), lambda x: x.permute(order), x)
    judge(lambda x: x.T, lambda x: x.permute([*reversed(range(n))]), x)
    if n:
        a, b = data.draw(dims(shape)), data.draw(dims(shape))
        judge(lambda x: x.permute(*order), lambda x: x.permute(*order), x)
        judge(lambda x: x.transpose(a, b), lambda x: x.transpose(a, b), x)
        judge(lambda x: tg.moveaxis(x, a, b), lambda x: torch.moveaxis(x, a, b), x)
        judge(lambda x: x.movedim(a, b), lambda x: x.movedim(a, b), x)
    if n > 1:
        judge(lambda x: x.mT, lambda x: x.mT, x)


@examples(30)
@given(shape=shapes, seed=seeds, data=st.data())
def test_squeeze_and_unsqueeze_agree_with_pytorch(shape, seed, data):
    shape = tuple(1 if n == 2 else n for n in shape)
    x = numbers(seed, shape)
    new = data.draw(st.integers(-len(shape) - 1, len(shape)))
    judge(lambda x: x.squeeze(), lambda x: x.squeeze(), x)
    judge(lambda x: x.unsqueeze(new), lambda x: x.unsqueeze(new), x)
    if shape:
        d = data.draw(dims(shape))
        several = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
        judge(lambda x: x.squeeze(d), lambda x: x.squeeze(d), x)
        judge(lambda x: x.squeeze(several), lambda x: x.squeeze(several), x)


# -------------------------------------------------------------------------------------------- copies


@examples(40)
@given(shape=shapes, seed=seeds, data=st.data())
def test_broadcast_and_repeat_agree_with_pytorch(shape, seed, data):
    shape = tuple(1 if n == 2 else n for n in shape)
    x = numbers(seed, shape)
    lead = data.draw(st.lists(st.integers(0, 3), max_size=2))
    to = (*lead, *(data.draw(st.sampled_from([-1, n, 3 if n == 1 else n])) for n in shape))
    judge(lambda x: x.expand(to), lambda x: x.expand(to), x)
    full = tuple(n if m == -1 else m for m, n in zip(to[len(lead) :], shape, strict=True))
    judge(lambda x: tg.broadcast_to(x, (*lead, *full)), lambda x: torch.broadcast_to(x, (*lead, *full)), x)
    times = (*lead, *(data.draw(st.integers(0, 2)) for _ in shape))
    judge(lambda x: x.repeat(times), lambda x: x.repeat(times), x)
    if times:
        judge(lambda x: x.repeat(*times), lambda x: x.repeat(*times), x)


# ------------------------------------------------------------------------------------- join and split


@examples(40)
@given(shape=with_axes, seed=seeds, data=st.data())
def test_cat_and_stack_agree_with_pytorch(shape, seed, data):
    d = data.draw(dims(shape))
    lengths = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    parts = []
    for k, n in enumerate(lengths):
        size = list(shape)
        size[d] = n
        parts.append(numbers(seed + k, size))
    judge(lambda *xs: tg.cat(xs, d), lambda *xs: torch.cat(xs, d), *parts)
    new = data.draw(st.integers(-len(shape) - 1, len(shape)))
    same_shape = [numbers(seed + k, shape) for k in range(len(lengths))]
    judge(lambda *xs: tg.stack(xs, new), lambda *xs: torch.stack(xs, new), *same_shape)


def test_joining_a_tensor_with_itself_sums_its_gradients():
    judge(lambda x: tg.cat([x, x, x]), lambda x: torch.cat([x, x, x]), numbers(0, (2, 3)))
    judge(lambda x: tg.stack([x, x], 1), lambda x: torch.stack([x, x], 1), numbers(0, (2, 3)))


def test_cat_of_scalars_after_stack_and_of_constants():
    judge(lambda a, b: tg.stack([a, b]), lambda a, b: torch.stack([a, b]), numbers(0, ()), numbers(1, ()))
    x = tg.ones(2, requires_grad=True)
    (g,) = tg.grad(tg.cat([tg.ones(3), x]).sum(), x)
    assert g.tolist() == [1, 1]


@pytest.mark.parametrize("a", ["bool", "uint8", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("b", ["bool", "uint8", "int64", "float16", "float32", "float64"])
def test_cat_promotes_as_pytorch_does(a, b):
    x, y = np.ones(2, dtype=a), np.ones(3, dtype=b)
    same(tg.cat([tg.tensor(x), tg.tensor(y)]), torch.cat([torch.from_numpy(x), torch.from_numpy(y)]))


def test_gradients_through_cat_keep_each_parts_dtype():
    a, b = tg.ones(2, requires_grad=True), tg.ones(3, dtype="float64", requires_grad=True)
    da, db = tg.grad(tg.cat([a, b]).sum(), [a, b])
    assert (da.dtype, db.dtype) == (tg.float32, tg.float64)


@examples(40)
@given(shape=with_axes, seed=seeds, data=st.data())
def test_split_chunk_unbind_narrow_agree_with_pytorch(shape, seed, data):
    x, d = numbers(seed, shape), data.draw(dims(shape))
    n = shape[d]
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    sections = [b - a for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    size, chunks = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    t, u = tg.tensor(x), torch.from_numpy(x)
    for ours, theirs in [
        (t.split(size, d), u.split(size, d)),
        (t.split(sections, d), u.split(sections, d)),
        (t.chunk(chunks, d), u.chunk(chunks, d)),
        (t.unbind(d), u.unbind(d)),
    ]:
        assert isinstance(ours, tuple) and len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    weigh = lambda parts: sum((k + 1) * (p * p).sum() for k, p in enumerate(parts))
    judge(lambda x: weigh(x.split(sections, d)), lambda x: weigh(x.split(sections, d)), x)
    judge(lambda x: weigh(x.chunk(chunks, d)[:1]), lambda x: weigh(x.chunk(chunks, d)[:1]), x)
    start = data.draw(st.integers(-n, n))
    length = data.draw(st.integers(0, n - (start % n if start < n and n else n)))
    if start < n:
        judge(lambda x: x.narrow(d, start, length), lambda x: x.narrow(d, start, length), x)


def test_split_of_many_pieces_takes_linear_time():
    assert len(tg.zeros(20_000).unbind()) == 20_000


@examples(40)
@given(shape=with_axes, seed=seeds, data=st.data())
def test_pad_zeros_pads_and_crops(shape, seed, data):
    d = data.draw(dims(shape))
    before, after = data.draw(st.integers(-(shape[d] // 2), 3)), data.draw(st.integers(-(shape[d] // 2), 3))
    widths = [0] * (2 * len(shape))
    place = 2 * (len(shape) - 1 - d % len(shape))
    widths[place : place + 2] = before, after
    judge(
        lambda x: pad_zeros(x, d, before, after),
        lambda x: torch.nn.functional.pad(x, widths),
        numbers(seed, shape),
    )


# ------------------------------------------------------------------------------------------ flip, roll


@examples(40)
@given(shape=shapes, seed=seeds, data=st.data())
def test_flip_and_roll_agree_with_pytorch(shape, seed, data):
    x, n = numbers(seed, shape), len(shape)
    axes = tuple(d - n * data.draw(st.booleans()) for d in data.draw(st.sets(st.integers(0, n - 1)))) if n else ()
    judge(lambda x: x.flip(axes), lambda x: x.flip(axes), x)
    shift = data.draw(st.integers(-7, 7))
    judge(lambda x: x.roll(shift), lambda x: x.roll(shift), x)
    if axes:
        shifts = tuple(data.draw(st.integers(-5, 5)) for _ in axes)
        judge(lambda x: x.flip(*axes), lambda x: x.flip(*axes), x)
        judge(lambda x: x.roll(shifts, axes), lambda x: x.roll(shifts, axes), x)
        judge(lambda x: x.roll(shift, axes[0]), lambda x: x.roll(shift, axes[0]), x)


# ------------------------------------------------------------------------------------ linear algebra


@pytest.mark.parametrize(
    "A, At, x_shape, y_shape",
    [
        (lambda x: x.reshape(6), lambda y: y.reshape(2, 3), (2, 3), (6,)),
        (lambda x: x.permute(2, 0, 1), lambda y: y.permute(1, 2, 0), (2, 3, 4), (4, 2, 3)),
        (lambda x: x.expand(4, 2, 3), lambda y: y.sum_to_size((1, 3)), (1, 3), (4, 2, 3)),
        (lambda x: x.repeat(2, 3), lambda y: y.reshape(2, 2, 3, 3).sum((0, 2)), (2, 3), (4, 9)),
        (lambda x: x.narrow(1, 1, 2), lambda y: pad_zeros(y, 1, 1, 1), (2, 4), (2, 2)),
        (lambda x: x.roll((1, -2), (0, 1)), lambda y: y.roll((-1, 2), (0, 1)), (2, 3), (2, 3)),
        (lambda x: x.flip(0, 1), lambda y: y.flip(0, 1), (2, 3), (2, 3)),
        (lambda x: tg.cat([x, 2 * x], 1), lambda y: y[:, :3] + 2 * y[:, 3:], (2, 3), (2, 6)),
    ],
)
def test_each_op_and_its_vjp_are_adjoint(A, At, x_shape, y_shape):
    x, y = numbers(0, x_shape), numbers(1, y_shape)
    tg.testing.check_adjoint(A, At, x, y)
    leaf = tg.tensor(x, requires_grad=True)
    (g,) = tg.grad(A(leaf), leaf, tg.tensor(y))
    np.testing.assert_allclose(g.numpy(), At(tg.tensor(y)).numpy(), rtol=1e-12)


def test_gradients_are_the_numerical_ones():
    x = numbers(0, (2, 3, 2))
    tg.testing.check_grad(lambda x: tg.cat([x.flip(1), x.roll(1, 2)], 1).permute(2, 0, 1).reshape(4, -1), x)
    tg.testing.check_grad(lambda x: tg.stack(x.split(2, 1)[:1] * 2, -1).repeat(1, 2, 1, 1), x)


# --------------------------------------------------------------------------------------------- memory


def test_padding_keeps_channels_last_memory():
    x = tg.tensor(np.ones((2, 4, 4, 3), dtype="float32")).permute(0, 3, 1, 2)
    y = pad_zeros(pad_zeros(x, 2, 1, 1), 3, 1, 1)
    assert y.shape == (2, 3, 6, 6) and y.data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_results_never_show_writes_to_what_they_were_made_of():
    x = tg.arange(6)
    views = [x.reshape(2, 3), x[1:], x.flip(0), x.unsqueeze(0), x.expand(2, 6), x.narrow(0, 1, 2), x.contiguous()]
    before = [v.tolist() for v in views]
    x[0] = 100
    x[3] = 100
    assert [v.tolist() for v in views] == before
    views[0][0, 0] = -1
    views[4][0, 1] = -1
    assert x.tolist() == [100, 1, 2, 100, 4, 5] and views[1].tolist() == before[1]
    assert views[4][1].tolist() == [0, 1, 2, 3, 4, 5]


# --------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: x.reshape(4, 2), ValueError, "reshape"),
        (lambda x: x.reshape(-1, -1), ValueError, "reshape"),
        (lambda x: x.reshape(2.0, 3), TypeError, "float"),
        (lambda x: x.flatten(1, 0), ValueError, "start_dim=1 comes after end_dim=0"),
        (lambda x: x.flatten(2), IndexError, "flatten: dim=2 is out of range for a tensor of 2 axes"),
        (lambda x: x.unflatten(1, (2, 2)), ValueError, "axis 1 of length 3 cannot have the sizes"),
        (lambda x: x.unflatten(1, (2, -1)), ValueError, "axis 1 of length 3 cannot have the sizes"),
        (lambda x: x.permute(0, 0), ValueError, "not an order of 2 axes"),
        (lambda x: x.permute(0), ValueError, "not an order of 2 axes"),
        (lambda x: x.permute(0, 2), ValueError, "not an order of 2 axes"),
        (lambda x: x.transpose(0, 2), IndexError, "transpose: dim=2"),
        (lambda x: x[0].mT, ValueError, "mT: expected at least two axes"),
        (lambda x: x.squeeze(2), IndexError, "squeeze: dim=2"),
        (lambda x: x.unsqueeze(3), IndexError, "unsqueeze: dim=3"),
        (lambda x: x.expand(4, 3), ValueError, "broadcast_to"),
        (lambda x: x.expand(3), ValueError, "broadcast_to"),
        (lambda x: x.expand(-1, 2, 3), ValueError, "broadcast_to"),
        (lambda x: x.repeat(2), ValueError, "1 repeats for a tensor of 2 axes"),
        (lambda x: x.narrow(1, 2, 2), IndexError, r"\[2, 4\) is outside axis 1 of length 3"),
        (lambda x: x.narrow(1, 0, -1), IndexError, "outside"),
        (lambda x: x.split(0), ValueError, "expected a positive length"),
        (lambda x: x.split([1, 2]), ValueError, "do not sum to 2"),
        (lambda x: x.split([3, -1]), ValueError, "do not sum to 2"),
        (lambda x: x.chunk(0), ValueError, "positive number of pieces"),
        (lambda x: x.flip(2), IndexError, "flip: dim=2"),
        (lambda x: x.flip(0, 0), ValueError, "flip"),
        (lambda x: x.roll((1, 2), 0), ValueError, "2 shifts for 1 axes"),
        (lambda x: x.roll((1, 2)), ValueError, "2 shifts, but no dims"),
        (lambda x: tg.cat([]), ValueError, "at least one tensor"),
        (lambda x: tg.stack([]), ValueError, "at least one tensor"),
        (lambda x: tg.cat([x, x[0]]), ValueError, r"tensors\[1\] has shape \(3,\), tensors\[0\] has \(2, 3\)"),
        (lambda x: tg.cat([x, x.T]), ValueError, "they may differ in axis 0 alone"),
        (lambda x: tg.cat([x, [1.0]]), TypeError, r"cat: expected tensors to hold Tensors, got list \[1.0\]"),
        (lambda x: tg.cat([x, x], 2), IndexError, "cat: dim=2"),
        (lambda x: tg.cat([x[0, 0], x[0, 0]]), IndexError, "0 axes"),
        (lambda x: tg.stack([x, x.T]), ValueError, r"stack: tensors\[1\] has shape \(3, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(tg.ones(2, 3))


@given(shape=filled_shapes)
@examples(10)
def test_reshape_reads_integers_of_every_kind(shape):
    size = [np.int64(n) for n in shape]
    assert tg.zeros(shape).reshape(size).shape == tuple(shape)
    assert tg.zeros(6).reshape(tg.tensor(2), 3).shape == (2, 3)


def test_every_op_of_the_file_is_tested_here():
    declared = {o.name for o in registry.values() if o.module == shape_ops.__name__}
    tested = "reshape permute broadcast_to crop pad_axis cat flip roll"
    assert declared == set(tested.split()), declared ^ set(tested.split())
