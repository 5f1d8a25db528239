"""The operators and methods of Tensor are the functions of the same names."""

import inspect

import numpy as np
import pytest

import tinygen as tg
from tinygen import methods
from tinygen_tests.draws import numbers
from tinygen_tests.judge import judge, torch

X = numbers(0, (3, 3), 0.3, 0.9)
Y = numbers(1, (3, 3), 0.3, 0.9)

# Every method with arguments that it takes; compared with PyTorch's method of the same name.
CALLS = {
    **dict.fromkeys(
        "neg abs sign floor ceil round exp expm1 log log1p sqrt rsqrt square reciprocal sin cos tanh sigmoid erf "
        "relu logical_not isnan isfinite sum mean var std prod amax amin max min argmax argmin all any norm "
        "flatten squeeze unbind clone contiguous tril triu half float double int long bool dim numel size".split(),
        (),
    ),
    **dict.fromkeys("add sub mul div pow maximum minimum eq ne lt le gt ge matmul".split(), ("Y",)),
    "outer": None,
    "clamp": (0.4, 0.6),
    "logsumexp": (1,),
    "softmax": (-1,),
    "log_softmax": (0,),
    "cumsum": (0,),
    "sum_to_size": ((1, 3),),
    "reshape": (9,),
    "view": (1, 9),
    "unflatten": (1, (3, 1)),
    "permute": (1, 0),
    "transpose": (0, 1),
    "movedim": (0, 1),
    "unsqueeze": (0,),
    "broadcast_to": ((2, 3, 3),),
    "expand": (2, 3, 3),
    "repeat": (2, 1),
    "narrow": (0, 1, 2),
    "split": (2,),
    "chunk": (2,),
    "flip": (0,),
    "roll": (1,),
    "to": None,
    "gather": None,
    "scatter_add": None,
    "index_select": None,
    "masked_fill": None,
    "where": None,
}


CASTS = ("half", "float", "double", "int", "long", "bool")


def arguments(module, spelled):
    other = tg.tensor(Y) if module is tg else torch.from_numpy(Y)
    return [other if a == "Y" else a for a in spelled]


@pytest.mark.parametrize("name", [n for n, spelled in CALLS.items() if spelled is not None])
def test_methods_agree_with_pytorchs(name):
    def call(module):
        def f(x):
            y = getattr(x, name)(*arguments(module, CALLS[name]))
            return y[0] if name in ("split", "chunk", "unbind") else y

        return f

    if name in ("dim", "numel", "size"):
        assert call(tg)(tg.tensor(X)) == call(torch)(torch.from_numpy(X))
        return
    judge(call(tg), call(torch), X, manners="Y" not in CALLS[name] and name not in ("half", "float"))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", [n for n, spelled in CALLS.items() if spelled is not None and n not in CASTS])
def test_low_precision_stays_from_value_to_second_gradient(name, dtype):
    x = tg.tensor(X.astype(dtype), requires_grad=True)
    y = getattr(x, name)(*[tg.tensor(Y.astype(dtype)) if a == "Y" else a for a in CALLS[name]])
    y = y[0] if isinstance(y, tuple) and name in ("split", "chunk", "unbind") else y
    if not isinstance(y, tg.Tensor) or not y.requires_grad:
        return
    assert y.dtype == x.dtype
    (g,) = tg.grad((y * y).sum(), x, create_graph=True)
    assert g.dtype == x.dtype
    (h,) = tg.grad((g * x).sum(), x)
    assert h.dtype == x.dtype and np.isfinite(h.numpy()).all()


def test_methods_that_take_tensors_agree_with_pytorchs():
    at, mask = np.array([[0, 1, 2], [2, 2, 0]]), X > 0.6
    judge(lambda x, i: x.gather(0, i), lambda x, i: x.gather(0, i), X, at)
    judge(lambda x, i, s: x.scatter_add(0, i, s), lambda x, i, s: x.scatter_add(0, i, s), X, at, Y[:2])
    judge(lambda x, i: x.index_select(1, i), lambda x, i: x.index_select(1, i), X, at[0])
    judge(lambda x, m: x.masked_fill(m, 2.0), lambda x, m: x.masked_fill(m, 2.0), X, mask)
    judge(lambda x, m, y: x.where(m, y), lambda x, m, y: x.where(m, y), X, mask, Y)
    judge(lambda x, y: x.outer(y), lambda x, y: x.outer(y), X[0], Y[0])
    judge(lambda x: x.to(tg.float64), lambda x: x.to(torch.float64), X)
    judge(lambda x: x.T @ x.mT, lambda x: x.T @ x.mT, X)


def test_every_method_that_is_hung_on_tensor_is_tested_here():
    hung = {name for names in methods._METHODS.values() for name in names.split()}
    hung |= {"where", "expand", "view", "movedim", "dim", "numel", "size"}
    hung |= {"half", "float", "double", "int", "long", "bool"}
    assert hung == set(CALLS), hung ^ set(CALLS)


OPERATORS = "x + y,x - y,x * y,x / y,x ** y,x @ y,-x,+x,abs(x),x < y,x <= y,x > y,x >= y,x == y,x != y".split(",")


@pytest.mark.parametrize("text", OPERATORS)
def test_operators_agree_with_pytorchs(text):
    f = lambda x, y: eval(text, {"x": x, "y": y})
    judge(f, f, X, Y)


@pytest.mark.cpu_only("about NumPy arrays beside tensors")
@pytest.mark.parametrize("text", ["x + y", "x - y", "x * y", "x / y", "x ** y", "x @ y", "x < y", "x == y"])
def test_arrays_on_the_left_of_an_operator_do_not_take_the_tensor_apart(text):
    x = tg.tensor(X, requires_grad=True)
    y = eval(text, {"x": Y, "y": x})
    assert isinstance(y, tg.Tensor)
    np.testing.assert_array_equal(y.detach().numpy(), eval(text, {"x": Y, "y": X}))
    assert y.requires_grad == (text[2] not in "<=")


def test_augmented_assignment_makes_a_new_tensor():
    x = tg.ones(2, requires_grad=True)
    y = x
    y += 1
    y *= 3
    assert x.tolist() == [1, 1] and y.tolist() == [6, 6]
    y.sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_a_tensor_has_a_size_per_axis():
    x = tg.zeros(2, 3)
    assert x.size() == (2, 3) and x.size(1) == x.size(-1) == 3
    with pytest.raises(IndexError):
        x.size(2)


def test_methods_have_the_functions_docstrings():
    for names in methods._METHODS.values():
        for name in names.split():
            assert inspect.getdoc(getattr(tg.Tensor, name)), name
