"""Arguments: what PyTorch has and we leave out is refused by name; bad ones are errors; dtype, device and rng count."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn

LAYERS = [
    (lambda **k: nn.Linear(2, 3, **k), True),
    (lambda **k: nn.Conv2d(2, 4, 3, **k), True),
    (lambda **k: nn.ConvTranspose2d(2, 4, 3, **k), True),
    (lambda **k: nn.Embedding(5, 3, **k), True),
    (lambda **k: nn.MultiheadAttention(4, 2, **k), True),
    (lambda **k: nn.BatchNorm1d(4, **k), False),
    (lambda **k: nn.BatchNorm2d(4, **k), False),
    (lambda **k: nn.InstanceNorm2d(4, affine=True, track_running_stats=True, **k), False),
    (lambda **k: nn.LayerNorm(4, **k), False),
    (lambda **k: nn.GroupNorm(2, 4, **k), False),
]

pytestmark = pytest.mark.cpu_only("about arguments, memory and CPU draws; test_on_a_gpu.py runs there")


@pytest.mark.parametrize(
    "make, name, value",
    [
        (lambda **k: nn.Conv2d(1, 1, 1, **k), "padding_mode", "reflect"),
        (lambda **k: nn.ConvTranspose2d(1, 1, 1, **k), "padding_mode", "circular"),
        (lambda **k: nn.ConvTranspose2d(1, 1, 1)(tg.ones(1, 1, 2, 2), **k), "output_size", (3, 3)),
        (lambda **k: nn.Dropout(**k), "inplace", True),
        (lambda **k: nn.ReLU(**k), "inplace", True),
        (lambda **k: nn.LeakyReLU(**k), "inplace", True),
        (lambda **k: nn.ELU(**k), "inplace", True),
        (lambda **k: nn.SiLU(**k), "inplace", True),
        (lambda **k: nn.Embedding(2, 2, **k), "max_norm", 1.0),
        (lambda **k: nn.Embedding(2, 2, **k), "norm_type", 1.0),
        (lambda **k: nn.Embedding(2, 2, **k), "scale_grad_by_freq", True),
        (lambda **k: nn.Embedding(2, 2, **k), "sparse", True),
        (lambda **k: nn.MultiheadAttention(2, 1, **k), "add_bias_kv", True),
        (lambda **k: nn.MultiheadAttention(2, 1, **k), "add_zero_attn", True),
        (lambda **k: nn.MultiheadAttention(2, 1, **k), "kdim", 3),
        (lambda **k: nn.MultiheadAttention(2, 1, **k), "vdim", 3),
        (lambda **k: nn.MultiheadAttention(2, 1)(*[tg.ones(3, 1, 2)] * 3, **k), "is_causal", True),
        (lambda **k: nn.utils.clip_grad_norm_([], 1.0, **k), "foreach", True),
        (lambda **k: nn.utils.clip_grad_value_([], 1.0, **k), "foreach", True),
    ],
)
def test_left_out_arguments_are_refused_by_name(make, name, value):
    with pytest.raises(NotImplementedError, match=name):
        make(**{name: value})


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "groups=2"),
        (lambda: nn.Conv2d(4, 3, 3, groups=2), ValueError, "groups=2"),
        (lambda: nn.Conv2d(4, 4, 0), ValueError, "kernel_size"),
        (lambda: nn.Conv2d(4, 4, 3, stride=0), ValueError, "stride"),
        (lambda: nn.Conv2d(4, 4, (1, 2, 3)), TypeError, "kernel_size"),
        (lambda: nn.Conv2d(4, 4, 3, padding="full"), ValueError, "full"),
        (lambda: nn.Conv2d(4, 4, 3, 2, "same"), ValueError, "stride=1"),
        (lambda: nn.ConvTranspose2d(4, 4, 3, padding="same"), TypeError, "same"),
        (lambda: nn.Dropout(1.5), ValueError, "1.5"),
        (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError, "padding_idx=3"),
        (lambda: nn.GroupNorm(3, 4), ValueError, "num_groups=3"),
        (lambda: nn.MultiheadAttention(5, 2), ValueError, "num_heads=2"),
        (lambda: nn.MultiheadAttention(4, 2, dropout=1.0), ValueError, "dropout"),
        (lambda: nn.Unflatten(1, 3), TypeError, "unflattened_size"),
        (lambda: nn.MSELoss(reduction="average"), ValueError, "average"),
        (lambda: nn.Linear(2, 2, dtype="int64"), TypeError, "int64"),
        (lambda: nn.Linear(2, 2, rng=np.random.default_rng(0)), TypeError, "tg.Generator"),
        (lambda: nn.Linear(2, 2, device="tpu"), ValueError, "tpu"),
        (lambda: nn.Embedding.from_pretrained(tg.ones(3)), ValueError, r"\(3,\)"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "layer, x, message",
    [
        (nn.Linear(3, 2), tg.ones(2, 4), r"\(2, 4\)"),
        (nn.Conv2d(3, 2, 1), tg.ones(2, 4, 5, 5), "channels"),
        (nn.BatchNorm1d(3), tg.ones(2, 4), "C = 3"),
        (nn.BatchNorm1d(3), tg.ones(2, 3, 4, 4), r"\(N, C, L\)"),
        (nn.BatchNorm1d(3), tg.ones(1, 3), "one number"),
        (nn.BatchNorm2d(3), tg.ones(2, 3), r"\(N, C, H, W\)"),
        (nn.BatchNorm2d(3), tg.ones(2, 4, 2, 2), "C = 3"),
        (nn.InstanceNorm2d(3), tg.ones(2, 4, 2, 2), "C = 3"),
        (nn.InstanceNorm2d(3), tg.ones(2, 3), r"\(C, H, W\)"),
        (nn.GroupNorm(1, 3), tg.ones(2, 4, 2, 2), "3"),
        (nn.LayerNorm(3), tg.ones(2, 4), "3"),
    ],
)
def test_inputs_that_do_not_fit(layer, x, message):
    state = {name: t.data.copy() for name, t in layer.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        layer(x)
    for name, t in layer.state_dict().items():
        np.testing.assert_array_equal(t.data, state[name], err_msg=f"{name} changed though the call failed")


def test_attention_inputs_that_do_not_fit():
    layer, x = nn.MultiheadAttention(4, 2), tg.ones(3, 2, 4)
    for q, k, v in ((tg.ones(3, 2, 5), x, x), (x, tg.ones(3, 1, 4), tg.ones(3, 1, 4)), (x, x, tg.ones(5, 2, 4))):
        with pytest.raises(ValueError, match="E = 4"):
            layer(q, k, v)
    with pytest.raises(ValueError, match="key_padding_mask"):
        layer(x, x, x, key_padding_mask=tg.ones(2, 3))
    with pytest.raises(ValueError, match="attn_mask"):
        layer(x, x, x, attn_mask=tg.ones(2, 2))


def test_a_query_that_may_look_nowhere_gets_the_bias_alone():
    layer, x = nn.MultiheadAttention(4, 2), tg.randn(3, 2, 4, rng=tg.Generator(0))
    nn.init.ones_(layer.out_proj.bias)
    nowhere = tg.Tensor(np.ones((2, 3), bool))
    for need_weights in (True, False):
        y, weights = layer(x, x, x, key_padding_mask=nowhere, need_weights=need_weights)
        np.testing.assert_array_equal(y.data, 1)
        assert weights is None or not weights.data.any()


def test_the_second_argument_of_batch_norm_is_eps():
    """`BatchNorm2d(n, 0.8)`, often copied, sets ε and not the momentum."""
    for layer in (nn.BatchNorm2d(3, 0.8), nn.BatchNorm1d(3, 0.8)):
        assert layer.eps == 0.8 and layer.momentum == 0.1
    x = tg.Tensor(np.random.default_rng(0).standard_normal((4, 3, 2, 2)))
    y = nn.BatchNorm2d(3, 0.8, affine=False).double()(x)
    expected = x.data.var((0, 2, 3)) / (x.data.var((0, 2, 3)) + 0.8)
    np.testing.assert_allclose(y.data.var((0, 2, 3)), expected, rtol=1e-10)


@pytest.mark.parametrize("make, random", LAYERS)
def test_dtype_device_and_rng(make, random):
    for dtype in (tg.float16, tg.float32, tg.float64):
        layer = make(dtype=dtype, device="cpu")
        tensors = [*layer.parameters(), *layer.buffers()]
        assert {t.dtype for t in tensors} <= {dtype, tg.int64} and {t.device for t in tensors} == {"cpu"}
    if random:
        a, b, c = (make(rng=tg.Generator(seed)) for seed in (1, 1, 2))
        for (name, p), q, r in zip(a.named_parameters(), b.parameters(), c.parameters()):
            np.testing.assert_array_equal(p.data, q.data)
            assert "proj" in name and "bias" in name or not np.array_equal(p.data, r.data), name
        before = [p.data.copy() for p in a.parameters()]
        a.reset_parameters(tg.Generator(5))
        assert any(not np.array_equal(p.data, old) for p, old in zip(a.parameters(), before))
    else:
        layer = make()
        for p in layer.parameters():
            p.data[...] = 7
        layer.reset_parameters()
        assert {float(p.data.flat[0]) for p in layer.parameters()} == {0.0, 1.0}


def test_the_default_dtype_counts():
    before = tg.get_default_dtype()
    tg.set_default_dtype(tg.float64)
    try:
        assert nn.Linear(1, 1).weight.dtype == tg.float64
        assert nn.BatchNorm1d(1).running_mean.dtype == tg.float64
    finally:
        tg.set_default_dtype(before)


@pytest.mark.parametrize("make, random", LAYERS)
def test_float32_stays_float32(make, random):
    layer = make()
    inputs = {
        "Linear": [tg.randn(3, 2)],
        "Conv2d": [tg.randn(2, 2, 5, 5)],
        "ConvTranspose2d": [tg.randn(2, 2, 5, 5)],
        "Embedding": [tg.tensor([1, 2])],
        "MultiheadAttention": [tg.randn(3, 2, 4)] * 3,
        "BatchNorm1d": [tg.randn(5, 4)],
        "LayerNorm": [tg.randn(5, 4)],
    }.get(type(layer).__name__, [tg.randn(2, 4, 3, 3)])
    for mode in (True, False):
        y = layer.train(mode)(*inputs)
        y = y[0] if isinstance(y, tuple) else y
        assert y.dtype == tg.float32
        (y * y).sum().backward()
        assert {p.grad.dtype for p in layer.parameters()} == {tg.float32}
        assert {b.dtype for b in layer.buffers()} <= {tg.float32, tg.int64}


def test_dropout_draws_from_its_generator():
    """Proves: Dropout."""
    x = tg.ones(1000)
    a, b = nn.Dropout(0.3, rng=tg.Generator(0)), nn.Dropout(0.3, rng=tg.Generator(0))
    first, second = a(x), a(x)
    np.testing.assert_array_equal(first.data, b(x).data)
    assert not np.array_equal(first.data, second.data)
    assert abs((first.data == 0).mean() - 0.3) < 0.07
    assert set(np.unique(first.data)) == {np.float32(0), np.float32(1 / 0.7)}
    assert a.eval()(x) is x
    attention = [nn.MultiheadAttention(4, 2, dropout=0.5, rng=tg.Generator(0)) for _ in range(2)]
    q = tg.randn(3, 2, 4)
    for need_weights in (True, False):
        one, two = (layer(q, q, q, need_weights=need_weights)[0] for layer in attention)
        np.testing.assert_array_equal(one.data, two.data)
        assert not np.array_equal(one.data, attention[0].eval()(q, q, q)[0].data)
        for layer in attention:
            layer.train()


def test_running_statistics_can_be_reset_and_averaged_over_all_batches():
    layer = nn.BatchNorm1d(2, momentum=None, dtype="float64")
    batches = np.random.default_rng(0).standard_normal((5, 8, 2))
    for x in batches:
        layer(tg.Tensor(x))
    np.testing.assert_allclose(layer.running_mean.data, batches.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.data, batches.var(1, ddof=1).mean(0), rtol=1e-12)
    assert layer.num_batches_tracked.item() == 5
    layer.eval()(tg.Tensor(batches[0]))
    assert layer.num_batches_tracked.item() == 5
    layer.reset_running_stats()
    assert not layer.running_mean.data.any() and (layer.running_var.data == 1).all()
    assert layer.num_batches_tracked.item() == 0


def test_embedding_from_a_table():
    table = tg.randn(4, 3)
    layer = nn.Embedding.from_pretrained(table)
    np.testing.assert_array_equal(layer(tg.tensor([2])).data[0], table.data[2])
    assert not layer.weight.requires_grad and not np.shares_memory(layer.weight.data, table.data)
    assert nn.Embedding.from_pretrained(table, freeze=False).weight.requires_grad
    padded = nn.Embedding(4, 3, padding_idx=-1)
    assert padded.padding_idx == 3 and not padded.weight.data[3].any() and padded.weight.data[0].any()


def test_the_order_of_arguments_is_pytorchs():
    their = pytest.importorskip("torch", reason="PyTorch is the judge here; pip install torch==2.13.0").nn
    checked = 0
    for name, ours in vars(nn).items():
        if not (inspect.isclass(ours) and hasattr(their, name)) or name in ("Module", "Parameter"):
            continue
        positional = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
        mine, his = (
            [p.name for p in inspect.signature(c.__init__).parameters.values() if p.kind in positional]
            for c in (ours, getattr(their, name))
        )
        skipped = {"_weight", "_freeze"}  # private there
        if "size_average" in his:  # deprecated; what follows is given by name
            his = his[: his.index("size_average")]
        assert [n for n in mine if n != "rng"] == [n for n in his if n not in skipped], name
        defaults = {p.name: p.default for p in inspect.signature(getattr(their, name).__init__).parameters.values()}
        for p in inspect.signature(ours.__init__).parameters.values():
            if p.name in defaults and name not in ("Softmax", "LogSoftmax"):
                assert p.default == defaults[p.name], (name, p.name)
        checked += 1
    assert checked > 40


def test_deepcopies_are_layers_of_their_own():
    for make, _ in LAYERS:
        layer = make()
        twin = copy.deepcopy(layer)
        for (name, t), u in zip(layer.state_dict().items(), twin.state_dict().values()):
            np.testing.assert_array_equal(t.data, u.data)
            assert not np.shares_memory(t.data, u.data), name
