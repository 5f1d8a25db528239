"""Casts, moves and copies: PyTorch's values and dtypes, gradients in the tensor's own dtype, memory, errors."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.backend import array_module
from tinygen.op import registry
from tinygen.ops import conversion
from tinygen_tests.draws import numbers
from tinygen_tests.judge import judge, same, torch

ALL = ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"]


@pytest.mark.parametrize("a", ALL)
@pytest.mark.parametrize("b", ALL)
def test_casts_agree_with_pytorch(a, b):
    x = np.array([0, 1, 3]).astype(a)
    y = tg.tensor(x).to(b)
    same(y, torch.from_numpy(x).to(getattr(torch, b)))


def test_casts_pass_gradients_back_in_the_tensors_own_dtype():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    (g,) = tg.grad((x.to(tg.float64) * 3).sum(), x)
    assert g.dtype == tg.float32 and g.tolist() == [3, 3]
    judge(lambda x: x.float().double() * x, lambda x: x.float().double() * x, numbers(0, (3,)), tol=1e-6, manners=False)


def test_casts_to_integers_carry_no_gradient_as_in_pytorch():
    x = tg.tensor([1.5, 2.5], requires_grad=True)
    for y in (x.to(tg.int64), x.long(), x.bool(), x.int()):
        assert not y.requires_grad
    y = (x * x.long().float()).sum()
    y.backward()
    assert x.grad.tolist() == [1, 2]


def test_short_casts():
    x = tg.tensor([1.0, 0.0])
    assert [getattr(x, m)().dtype for m in ("half", "float", "double", "int", "long", "bool")] == [
        np.dtype(d) for d in ("float16", "float32", "float64", "int32", "int64", "bool")
    ]


@pytest.mark.cpu_only("about the CPU")
def test_to_is_the_tensor_itself_where_nothing_changes():
    x = tg.ones(2)
    assert x.to("cpu") is x and x.to(tg.float32) is x and x.to(tg.zeros(1)) is x and x.to() is x
    assert x.to("cpu", tg.float64).dtype == tg.float64
    assert x.to(tg.zeros(1, dtype="int64")).dtype == tg.int64
    y = x.to(tg.float32, copy=True)
    assert y is not x and not np.may_share_memory(x.data, y.data)


@pytest.mark.parametrize("wrong", ["gpu", "float33", object(), 5])
def test_to_refuses_what_is_neither_dtype_nor_device(wrong):
    with pytest.raises(TypeError, match="expected a dtype"):
        tg.ones(2).to(wrong)


def test_to_refuses_arguments_that_it_does_not_know():
    with pytest.raises(TypeError, match="non_blocking"):
        tg.ones(2).to("cpu", non_blocking=True)


def test_to_cuda_without_a_gpu_says_what_is_missing():
    if tg.backend.cupy_problem() is None:
        pytest.skip("a GPU can be used here")
    with pytest.raises(tg.DeviceError, match='device "cuda" was asked for, but CuPy'):
        tg.ones(2).to("cuda")


def test_clones_own_their_memory_and_keep_the_order_of_axes():
    x = tg.tensor(np.ones((2, 3, 4, 5), dtype="float32")).permute(0, 3, 1, 2)
    y = x.clone()
    assert not array_module(x.data).may_share_memory(x.data, y.data) and y.data.strides == x.data.strides
    z = x.contiguous()
    assert z.data.flags.c_contiguous and z.shape == x.shape
    judge(lambda x: x.clone() * x, lambda x: x.clone() * x, numbers(0, (2, 3)))
    judge(lambda x: x.T.contiguous() * 2, lambda x: x.T.contiguous() * 2, numbers(0, (2, 3)))
    assert tg.tensor(2.0).contiguous().shape == ()


def test_every_op_of_the_file_is_tested_here():
    declared = {o.name for o in registry.values() if o.module == conversion.__name__}
    assert declared == {"astype", "to_device", "clone", "contiguous"}
