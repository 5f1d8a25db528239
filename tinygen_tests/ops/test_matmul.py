"""Matrix products and einsum: PyTorch's values and gradients over every shape of operand and equation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tinygen.op import registry
from tinygen.ops import matmul as matmul_ops
from tinygen_tests.draws import examples, numbers, pairs, seeds
from tinygen_tests.judge import judge, same, torch

SHAPES = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (4, 3, 2)),
    ((1, 2, 3), (5, 3, 4)),
    ((1, 1), (1, 1)),
    ((2, 0), (0, 3)),
    ((0, 2), (2, 3)),
    ((0,), (0,)),
    ((0, 2, 3), (3, 1)),
    ((2, 3, 0), (2, 0, 3)),
]


@pytest.mark.parametrize("a, b", SHAPES, ids=str)
def test_matmul_agrees_with_pytorch(a, b):
    judge(tg.matmul, lambda x, y: torch.matmul(x, y), numbers(0, a), numbers(1, b))


@examples(40)
@given(shapes=pairs(), sizes=st.tuples(*[st.integers(0, 3)] * 3), seed=seeds)
def test_batches_broadcast_as_in_pytorch(shapes, sizes, seed):
    n, k, m = sizes
    a, b = numbers(seed, (*shapes[0], n, k)), numbers(seed + 1, (*shapes[1], k, m))
    judge(lambda x, y: x @ y, lambda x, y: x @ y, a, b)


@pytest.mark.parametrize("a, b", SHAPES[:10], ids=str)
def test_gradients_are_the_numerical_ones(a, b):
    tg.testing.check_grad(tg.matmul, numbers(0, a), numbers(1, b))


def test_the_same_matrix_twice():
    x = numbers(0, (3, 3))
    for f in (lambda x: x @ x, lambda x: x @ x.mT, lambda x: x.T @ x @ x):
        judge(f, f, x)


@pytest.mark.cpu_only("about NumPy arrays beside tensors")
def test_arrays_are_constants_on_either_side():
    x, a = numbers(0, (2, 2)), numbers(1, (2, 2))
    judge(lambda x: a @ x, lambda x: torch.from_numpy(a) @ x, x, manners=False)
    judge(lambda x: x @ a, lambda x: x @ torch.from_numpy(a), x, manners=False)


def test_products_with_a_fixed_matrix_are_adjoint_to_those_with_its_transpose():
    a = tg.tensor(numbers(0, (4, 3)))
    tg.testing.check_adjoint(lambda x: a @ x, lambda y: a.T @ y, numbers(1, (3, 2)), numbers(2, (4, 2)))


@examples(15)
@given(n=st.integers(0, 4), m=st.integers(0, 4), seed=seeds)
def test_outer_agrees_with_pytorch(n, m, seed):
    judge(tg.outer, lambda x, y: torch.outer(x, y), numbers(seed, (n,)), numbers(seed + 1, (m,)))


def test_outer_of_a_vector_with_itself():
    judge(lambda x: x.outer(x), lambda x: x.outer(x), numbers(0, (3,)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "int32"])
def test_products_keep_the_dtype(dtype):
    a, b = np.arange(6).reshape(2, 3).astype(dtype), np.arange(12).reshape(3, 4).astype(dtype)
    same(tg.tensor(a) @ tg.tensor(b), torch.from_numpy(a) @ torch.from_numpy(b), 1e-2)
    same(
        tg.einsum("ij,jk->ki", tg.tensor(a), tg.tensor(b)),
        torch.einsum("ij,jk->ki", torch.from_numpy(a), torch.from_numpy(b)),
        1e-2,
    )
    if dtype.startswith("float"):
        x, y = tg.tensor(a, requires_grad=True), tg.tensor(b, requires_grad=True)
        for out in (x @ y, tg.einsum("ij,jk", x, y)):
            assert {g.dtype for g in tg.grad(out.sum(), [x, y])} == {np.dtype(dtype)}


@pytest.mark.parametrize("f", [tg.matmul, lambda a, b: tg.einsum("ij,jk->ik", a, b)])
def test_mixed_dtypes_meet_in_the_wider_one_and_gradients_return_to_their_own(f):
    # PyTorch refuses them.
    a, b = tg.ones(2, 3, requires_grad=True), tg.ones(3, 2, dtype="float64", requires_grad=True)
    y = f(a, b)
    assert y.dtype == tg.float64
    da, db = tg.grad(y.sum(), [a, b])
    assert (da.dtype, db.dtype) == (tg.float32, tg.float64)
    assert f(a, tg.ones(3, 2, dtype="int64")).dtype == tg.float32


# --------------------------------------------------------------------------------------------- einsum

SIZES = {"i": 2, "j": 3, "k": 4, "l": 2, "b": 3, "Z": 2}
EQUATIONS = [
    "i->i",
    "i->",
    "i",
    "ij->ji",
    "ij->",
    "ij->i",
    "ji",
    "ij->j",
    "i,i->",
    "i,i->i",
    "i,j->ij",
    "i,j->ji",
    "i,j",
    "i,j->",
    "ij,jk->ik",
    "ij,jk",
    "ij,jk->ki",
    "ij,jk->",
    "ij,jk->j",
    "ij,ij->",
    "ij,ij->ij",
    "ij,kj->ikj",
    "ij,j->i",
    "bij,bjk->bik",
    "bij,bjk->ik",
    "bij,jk->bik",
    "ij,jk,kl->il",
    "ij,jk,kl",
    "i,ij,j->",
    "i,i,i->i",
    "ij,ik,il->jkl",
    "iZ,Zj->ij",
    "iZ,Zj",
    "ij , jk -> ik",
    ",i->i",
    ",->",
    "->",
    "",
]


def operands(equation, seed=0):
    left = equation.replace(" ", "").partition("->")[0]
    return [numbers(seed + k, [SIZES[c] for c in letters]) for k, letters in enumerate(left.split(","))]


@pytest.mark.parametrize("equation", EQUATIONS)
def test_equations_agree_with_pytorch(equation):
    """Proves: einsum."""
    judge(lambda *xs: tg.einsum(equation, *xs), lambda *xs: torch.einsum(equation, *xs), *operands(equation))


@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij,ik,il->jkl", "i,i->", "ij->i", "bij,bjk->ik"])
def test_einsum_gradients_are_the_numerical_ones(equation):
    tg.testing.check_grad(lambda *xs: tg.einsum(equation, *xs), *operands(equation))


@pytest.mark.parametrize(
    "equation, shapes",
    [
        ("ii->i", [(3, 3)]),
        ("ii->", [(3, 3)]),
        ("ii", [(3, 3)]),
        ("iij->ji", [(3, 3, 2)]),
        ("iji->j", [(3, 2, 3)]),
        ("jii->ij", [(2, 3, 3)]),
        ("iii->i", [(3, 3, 3)]),
        ("iijj->ij", [(3, 3, 2, 2)]),
        ("ijij->", [(3, 2, 3, 2)]),
        ("ii,ij->j", [(3, 3), (3, 2)]),
        ("ii,jj->ij", [(3, 3), (2, 2)]),
        ("ij,jj->i", [(3, 2), (2, 2)]),
        ("...->...", [(2, 3)]),
        ("...", [(2, 3)]),
        ("...i->...", [(2, 3)]),
        ("i...->...i", [(2, 3, 4)]),
        ("...ij,...jk->...ik", [(5, 2, 3), (5, 3, 4)]),
        ("...ij,...jk->...ik", [(5, 2, 3), (3, 4)]),
        ("...ij,...jk->...ik", [(4, 1, 2, 3), (5, 3, 2)]),
        ("...ij,...jk", [(5, 2, 3), (5, 3, 4)]),
        ("...ij,jk->...ik", [(2, 3), (3, 4)]),
        ("...ij->...ji", [(2, 3)]),
        ("...,...->...", [(2, 3), (3,)]),
        ("...i,i->...", [(2, 4, 3), (3,)]),
        ("i...,i->...", [(3, 2, 4), (3,)]),
        ("...i->i", [(2, 3)]),
        ("...ij,...jk->ik", [(5, 2, 3), (5, 3, 4)]),
        ("...,i->i...", [(2,), (3,)]),
        ("i...j,j...->i...", [(2, 5, 3), (3, 5)]),
        ("...ii->...i", [(2, 3, 3)]),
        ("ij,jk->ik", [(2, 1), (3, 4)]),
        ("ij,jk->ik", [(2, 3), (1, 4)]),
        ("ij,ij->ij", [(1, 3), (2, 1)]),
        ("ij,ij->i", [(1, 3), (2, 1)]),
        ("ij,ij->", [(1, 1), (2, 3)]),
        ("i,i,i->i", [(1,), (3,), (1,)]),
        ("ii,i->i", [(3, 3), (1,)]),
        ("bhqd,bhkd->bhqk", [(2, 2, 3, 4), (2, 2, 5, 4)]),
        ("bhqk,bhkd->bqhd", [(2, 2, 3, 4), (2, 2, 4, 5)]),
        ("ij,jk->ik", [(2, 0), (0, 3)]),
        ("ij,jk->ik", [(0, 2), (2, 3)]),
        ("ij->i", [(2, 0)]),
        ("ij->ji", [(0, 2)]),
    ],
    ids=str,
)
def test_diagonals_ellipses_lengths_of_one_and_empty_axes_agree_with_pytorch(equation, shapes):
    xs = [numbers(k, shape) for k, shape in enumerate(shapes)]
    judge(lambda *xs: tg.einsum(equation, *xs), lambda *xs: torch.einsum(equation, *xs), *xs)


@examples(60)
@given(data=st.data(), seed=seeds)
def test_drawn_equations_agree_with_pytorch(data, seed):
    letters = st.text("ijkl", min_size=0, max_size=3)
    inputs = data.draw(st.lists(letters, min_size=1, max_size=3))
    used = sorted(set("".join(inputs)))
    output = "".join(data.draw(st.permutations(used))[: data.draw(st.integers(0, len(used)))])
    equation = ",".join(inputs) + data.draw(st.sampled_from(["", "->" + output]))
    xs = [numbers(seed + k, [SIZES[c] for c in s]) for k, s in enumerate(inputs)]
    judge(lambda *xs: tg.einsum(equation, *xs), lambda *xs: torch.einsum(equation, *xs), *xs)


def test_the_same_operand_twice_and_operands_in_a_list():
    x = numbers(0, (3, 3))
    judge(lambda x: tg.einsum("ij,jk->ik", x, x), lambda x: torch.einsum("ij,jk->ik", x, x), x)
    judge(lambda x: tg.einsum("ij,ij->", [x, x]), lambda x: torch.einsum("ij,ij->", [x, x]), x)


def test_constant_operands_are_left_alone():
    x, a = tg.ones(2, 3, requires_grad=True), tg.ones(3, 2)
    y = tg.einsum("ij,jk->ik", x, a)
    y.sum().backward()
    assert a.grad is None and x.grad.tolist() == [[2] * 3] * 2
    assert not tg.einsum("ij->", a).requires_grad


# --------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "a, b, message",
    [
        ((2, 3), (2, 3), r"shapes \(2, 3\) and \(2, 3\): the last axis of the first \(3\) must be as long as the sec"),
        ((3,), (2,), r"shapes \(3,\) and \(2,\): .* as long as the axis of the second \(2\)"),
        ((), (2,), "at least one axis each"),
        ((2, 3), (), "at least one axis each"),
        ((2, 2, 3), (3, 3, 4), "matmul"),
    ],
)
def test_shapes_that_do_not_fit_are_named(a, b, message):
    with pytest.raises(ValueError, match=message):
        tg.ones(a) @ tg.ones(b)


@pytest.mark.parametrize("wrong", [[1.0, 2.0], 2.0, None])
def test_operands_that_are_no_tensors_are_named(wrong):
    for call in (
        lambda: tg.ones(2) @ wrong,
        lambda: wrong @ tg.ones(2),
        lambda: tg.matmul(tg.ones(2), wrong),
        lambda: tg.outer(tg.ones(2), wrong),
        lambda: tg.einsum("i,i", tg.ones(2), wrong),
    ):
        with pytest.raises(TypeError, match=r"(matmul|outer|einsum): expected .*Tensor.*, got (list|float|None)"):
            call()


def test_outer_refuses_matrices():
    with pytest.raises(ValueError, match=r"outer: expected two vectors, got shapes \(2, 2\) and \(2,\)"):
        tg.outer(tg.ones(2, 2), tg.ones(2))


@pytest.mark.parametrize(
    "equation, shapes, message",
    [
        ("ij,jk->ik", [(2, 3)], "names 2 operands, got 1"),
        ("ij->i", [(2, 3), (3, 4)], "names 1 operands, got 2"),
        ("ij->i", [], "names 1 operands, got 0"),
        ("ij,jk->ik", [(2, 3), (4, 5)], "letter 'j' has the lengths 3 and 4"),
        ("ij->ii", [(2, 3)], "each output letter must occur once"),
        ("ij->k", [(2, 3)], "each output letter must occur once"),
        ("i->i", [(2, 3)], "'i' does not fit an operand of shape"),
        ("ijk->i", [(2, 3)], "'ijk' does not fit an operand of shape"),
        ("...ij->...", [(2,)], "does not fit an operand of shape"),
        ("i1->i", [(2, 3)], "does not fit"),
        ("i.j->i", [(2, 3)], "does not fit"),
        ("...i...->i", [(2, 3)], "does not fit"),
        ("ii->i", [(2, 3)], "letter 'i' has the lengths 2 and 3"),
        ("ii->i", [(3, 1)], "letter 'i' stands for axes of lengths 3 and 1"),
        ("ij->i->j", [(2, 3)], "einsum"),
    ],
)
def test_equations_that_do_not_fit_are_refused(equation, shapes, message):
    with pytest.raises(ValueError, match=message):
        tg.einsum(equation, *[tg.ones(s) for s in shapes])


def test_every_op_of_the_file_is_tested_here():
    assert {o.name for o in registry.values() if o.module == matmul_ops.__name__} == {"matmul", "einsum"}
