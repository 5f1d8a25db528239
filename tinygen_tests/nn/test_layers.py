"""Every layer beside PyTorch's, over its arguments: value, all gradients, state, names and printed form."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn
from tinygen_tests.nn.beside_torch import compare, numbers, torch

their = torch.nn


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


IMAGE = (2, 4, 7, 6)
POSITIVE = np.abs(normal(3, 4)) + 0.1

CASES = [
    # layer, arguments, named arguments, inputs
    ("Linear", (4, 3), {}, [normal(5, 4)]),
    ("Linear", (4, 3), {"bias": False}, [normal(2, 5, 4)]),
    ("Linear", (4, 3), {}, [normal(4)]),
    ("Identity", (), {}, [normal(2, 3)]),
    ("Identity", (54,), {"unused": 1}, [normal(2, 3)]),
    ("Conv2d", (4, 6, 3), {}, [normal(*IMAGE)]),
    ("Conv2d", (4, 6, 3), {}, [normal(*IMAGE[1:])]),
    ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 2), "bias": False}, [normal(*IMAGE)]),
    ("Conv2d", (4, 6, 3), {"dilation": 2, "groups": 2, "padding": 2}, [normal(*IMAGE)]),
    ("Conv2d", (4, 4, 3), {"groups": 4, "padding": "same"}, [normal(*IMAGE)]),
    ("Conv2d", (4, 5, 3, 2, "valid"), {}, [normal(*IMAGE)]),
    ("Conv2d", (4, 5, 1), {}, [normal(*IMAGE)]),
    ("ConvTranspose2d", (4, 6, 3), {}, [normal(*IMAGE)]),
    ("ConvTranspose2d", (4, 6, 4, 2, 1), {"bias": False}, [normal(*IMAGE)]),
    ("ConvTranspose2d", (4, 6, 3, (2, 3), 1, (1, 2), 2), {}, [normal(*IMAGE)]),
    ("ConvTranspose2d", (4, 6, 3), {"dilation": (2, 1), "padding": (0, 1)}, [normal(*IMAGE[1:])]),
    ("MaxPool2d", (2,), {}, [normal(*IMAGE)]),
    ("MaxPool2d", (3, 2, 1), {"ceil_mode": True}, [normal(*IMAGE)]),
    ("MaxPool2d", ((3, 2),), {"stride": (1, 2), "dilation": (2, 1), "return_indices": True}, [normal(*IMAGE)]),
    ("AvgPool2d", (2,), {}, [normal(*IMAGE)]),
    ("AvgPool2d", (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}, [normal(*IMAGE)]),
    ("AvgPool2d", (2,), {"divisor_override": 3}, [normal(*IMAGE[1:])]),
    ("AdaptiveAvgPool2d", (1,), {}, [normal(*IMAGE)]),
    ("AdaptiveAvgPool2d", ((3, None),), {}, [normal(*IMAGE)]),
    ("Upsample", (), {"scale_factor": 2}, [normal(*IMAGE)]),
    ("Upsample", (), {"scale_factor": (2, 1.5), "mode": "bilinear"}, [normal(*IMAGE)]),
    ("Upsample", ((9, 5),), {"mode": "bilinear", "align_corners": True}, [normal(*IMAGE)]),
    ("Upsample", (), {"scale_factor": 1.7, "recompute_scale_factor": True}, [normal(*IMAGE)]),
    ("PixelShuffle", (2,), {}, [normal(*IMAGE)]),
    ("BatchNorm1d", (4,), {}, [normal(5, 4)]),
    ("BatchNorm1d", (4,), {"momentum": None, "bias": False}, [normal(5, 4, 3)]),
    ("BatchNorm2d", (4,), {}, [normal(*IMAGE)]),
    ("BatchNorm2d", (4, 0.8), {}, [normal(*IMAGE)]),
    ("BatchNorm2d", (4, 1e-3, 0.3), {"affine": False}, [normal(*IMAGE)]),
    ("BatchNorm2d", (4,), {"track_running_stats": False, "momentum": None}, [normal(*IMAGE)]),
    ("LayerNorm", (6,), {}, [normal(*IMAGE)]),
    ("LayerNorm", ((4, 7, 6), 1e-2), {"bias": False}, [normal(*IMAGE)]),
    ("LayerNorm", ([7, 6],), {"elementwise_affine": False}, [normal(*IMAGE)]),
    ("GroupNorm", (2, 4), {}, [normal(*IMAGE)]),
    ("GroupNorm", (1, 4, 1e-2), {"affine": False}, [normal(*IMAGE)]),
    ("GroupNorm", (4, 4), {"bias": False}, [normal(3, 4, 5)]),
    ("InstanceNorm2d", (4,), {}, [normal(*IMAGE)]),
    ("InstanceNorm2d", (4,), {"affine": True}, [normal(*IMAGE[1:])]),
    ("InstanceNorm2d", (4, 1e-2, 0.3, True, True), {"bias": False}, [normal(*IMAGE)]),
    ("Embedding", (5, 3), {}, [np.array([[0, 4, 0], [1, 1, 2]])]),
    ("Embedding", (5, 3, -1), {}, [np.array([[0, 4, 0], [4, 1, 2]])]),
    ("Dropout", (0.0,), {}, [normal(3, 4)]),
    ("Dropout", (1.0,), {}, [normal(3, 4)]),
    ("Flatten", (), {}, [normal(*IMAGE)]),
    ("Flatten", (0, 2), {}, [normal(*IMAGE)]),
    ("Unflatten", (1, (2, -1)), {}, [normal(*IMAGE)]),
    ("ReLU", (), {}, [normal(3, 4)]),
    ("LeakyReLU", (0.2,), {}, [normal(3, 4)]),
    ("ELU", (0.7,), {}, [normal(3, 4)]),
    ("SiLU", (), {}, [normal(3, 4)]),
    ("GELU", (), {}, [normal(3, 4)]),
    ("GELU", ("tanh",), {}, [normal(3, 4)]),
    ("Softplus", (2.0, 3.0), {}, [3 * normal(3, 4)]),
    ("Sigmoid", (), {}, [normal(3, 4)]),
    ("Tanh", (), {}, [normal(3, 4)]),
    ("LogSigmoid", (), {}, [normal(3, 4)]),
    ("Softmax", (1,), {}, [normal(3, 4)]),
    ("Softmax", (), {"dim": 0}, [normal(3, 4)]),
    ("LogSoftmax", (-1,), {}, [normal(3, 4)]),
    ("MSELoss", (), {}, [normal(3, 4), normal(3, 4, seed=2)]),
    ("MSELoss", (), {"reduction": "none"}, [normal(3, 4), normal(3, 4, seed=2)]),
    ("L1Loss", (), {"reduction": "sum"}, [normal(3, 4), normal(3, 4, seed=2)]),
    ("SmoothL1Loss", (), {"beta": 0.5}, [normal(3, 4), normal(3, 4, seed=2)]),
    ("HuberLoss", ("sum", 0.5), {}, [normal(3, 4), normal(3, 4, seed=2)]),
    ("BCELoss", (), {}, [1 / (1 + np.exp(-normal(3, 4))), POSITIVE / 4]),
    ("BCEWithLogitsLoss", (), {"reduction": "sum"}, [normal(3, 4), POSITIVE / 4]),
    ("NLLLoss", (), {"ignore_index": 2}, [normal(5, 4), np.array([0, 3, 2, 1, 1])]),
    ("CrossEntropyLoss", (), {"label_smoothing": 0.1}, [normal(5, 4), np.array([0, 3, 2, 1, 1])]),
    ("CrossEntropyLoss", (), {}, [normal(2, 4, 3), np.array([[0, 3, 2], [1, 1, 0]])]),
    ("KLDivLoss", (), {"reduction": "batchmean"}, [normal(3, 4), POSITIVE]),
    ("KLDivLoss", (), {"reduction": "sum", "log_target": True}, [normal(3, 4), normal(3, 4, seed=2)]),
]
NORMS = [case for case in CASES if "Norm" in case[0]]


@pytest.mark.parametrize("name, args, kwargs, inputs", CASES)
def test_as_pytorch(name, args, kwargs, inputs):
    compare(getattr(nn, name)(*args, **kwargs), getattr(their, name)(*args, **kwargs), *inputs, calls=2)


@pytest.mark.parametrize("name, args, kwargs, inputs", NORMS)
def test_norms_in_eval(name, args, kwargs, inputs):
    compare(getattr(nn, name)(*args, **kwargs), getattr(their, name)(*args, **kwargs).eval(), *inputs, calls=2)


@pytest.mark.parametrize(
    "name, weights, inputs",
    [
        ("BCELoss", {"weight": (4,)}, [1 / (1 + np.exp(-normal(3, 4))), POSITIVE / 4]),
        ("BCEWithLogitsLoss", {"weight": (3, 1), "pos_weight": (4,)}, [normal(3, 4), POSITIVE / 4]),
        ("NLLLoss", {"weight": (4,)}, [normal(5, 4), np.array([0, 3, 2, 1, 1])]),
        ("CrossEntropyLoss", {"weight": (4,)}, [normal(5, 4), np.array([0, 3, 2, 1, 1])]),
    ],
)
def test_weights_of_losses_are_buffers(name, weights, inputs):
    arrays = {key: np.abs(normal(*shape, seed=5)) for key, shape in weights.items()}
    ours = getattr(nn, name)(**{key: tg.tensor(a) for key, a in arrays.items()})
    theirs = getattr(their, name)(**{key: torch.from_numpy(a.copy()) for key, a in arrays.items()})
    assert list(ours.state_dict()) == list(weights)
    compare(ours, theirs, *inputs)


ATTENTION = [
    {},
    {"need_weights": False},
    {"average_attn_weights": False},
    {"key_padding_mask": "padding"},
    {"attn_mask": "causal"},
    {"attn_mask": "causal", "key_padding_mask": "padding", "need_weights": False},
    {"attn_mask": "float", "average_attn_weights": False},
    {"attn_mask": "per head"},
    {"attn_mask": "per head", "need_weights": False},
]
MASKS = {
    "padding": np.array([[False, False, True, False, False], [False, False, False, True, True]]),
    "causal": np.triu(np.ones((5, 5), bool), 1),
    "float": normal(5, 5, seed=7),
    "per head": np.random.default_rng(3).random((2 * 3, 5, 5)) < 0.3,
}


class Attention:
    """A MultiheadAttention whose masks are arrays, in ours and in theirs."""

    def __init__(self, layer, wrap, call):
        self.layer, self.wrap, self.call = layer, wrap, call

    def __getattr__(self, name):
        return getattr(self.layer, name)

    def double(self):
        self.layer.double()
        return self

    def __repr__(self):
        return repr(self.layer).replace("NonDynamicallyQuantizableLinear", "Linear")

    def __call__(self, *inputs):
        return self.layer(
            *inputs, **{k: self.wrap(MASKS[v]) if isinstance(v, str) else v for k, v in self.call.items()}
        )


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("call", ATTENTION)
def test_attention(call, batch_first):
    """Proves: MultiheadAttention."""
    x = normal(2, 5, 6) if batch_first else normal(5, 2, 6)
    ours = Attention(nn.MultiheadAttention(6, 3, batch_first=batch_first), tg.tensor, call)
    theirs = Attention(their.MultiheadAttention(6, 3, batch_first=batch_first), torch.from_numpy, call)
    compare(ours, theirs, x, x + 1, x * x)
    itself = Attention(ours.layer, tg.tensor, call)
    itself.layer = lambda x, **options: ours.layer(x, x, x, **options)
    twice = Attention(theirs.layer, torch.from_numpy, call)
    twice.layer = lambda x, **options: theirs.layer(x, x, x, **options)
    a, b = tg.tensor(x).requires_grad_(), torch.from_numpy(x.copy()).requires_grad_()
    p, q = itself(a)[0], twice(b)[0]
    np.testing.assert_allclose(numbers(p), numbers(q), rtol=1e-9, atol=1e-9)
    g = normal(*x.shape, seed=9)
    p.backward(tg.tensor(g))
    q.backward(torch.from_numpy(g))
    np.testing.assert_allclose(numbers(a.grad), numbers(b.grad), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bias", [False, True])
def test_attention_of_other_lengths_and_without_a_batch(bias):
    ours, theirs = nn.MultiheadAttention(6, 2, bias=bias), their.MultiheadAttention(6, 2, bias=bias)
    a, b = (Attention(layer, None, {}) for layer in (ours, theirs))
    compare(a, b, normal(4, 2, 6), normal(7, 2, 6, seed=2), normal(7, 2, 6, seed=3))
    compare(a, b, normal(4, 6), normal(7, 6, seed=2), normal(7, 6, seed=3))
