"""check_inverse and check_batch_consistency: they pass what is right, and catch every bug seeded here."""

import numpy as np
import pytest
from hypothesis import given, settings

import tinygen as tg
import tinygen.nn.functional as F
from tinygen import nn
from tinygen.testing import GradientError, check_batch_consistency, check_inverse, positive, real
from tinygen.testing import strategies as draw

X = np.random.default_rng(0).uniform(0.3, 2, (3, 4))
IMAGES = np.random.default_rng(1).standard_normal((3, 4, 4, 4))


# ----------------------------------------------------------------------------------------------- inverses

PAIRS = {
    "exp, log": (tg.exp, tg.log, X),
    "square, sqrt": (lambda x: x * x, tg.sqrt, X),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), lambda y: F.pixel_unshuffle(y, 2), IMAGES),
    "roll": (lambda x: x.roll(1, 0), lambda y: y.roll(-1, 0), X),
    "split, cat": (lambda x: x, lambda y: tg.cat(y.split(1, 1), 1), X),
    "logit, sigmoid": (tg.sigmoid, lambda y: tg.log(y) - tg.log1p(-y), X),
    "integers": (lambda i: i + 1, lambda i: i - 1, np.arange(3)),
    "empty": (tg.exp, tg.log, np.zeros((0, 2))),
}


@pytest.mark.parametrize("f, g, x", PAIRS.values(), ids=PAIRS.keys())
def test_inverses_pass(f, g, x):
    assert check_inverse(f, g, x) is None


@settings(max_examples=20)
@given(draw.tensors(draw.shapes(0, 3, 0, 3), positive(), draw.dtypes()))
def test_inverses_pass_in_every_shape_and_dtype(x):
    check_inverse(tg.log, tg.exp, x)


def half_gradient():
    @tg.op
    def log(x):
        from tinygen.backend import array_module

        return array_module(x).log(x)

    @log.vjp("x")
    def _(g, x):
        return g / x / 2

    return log


WRONG_PAIRS = {
    "another function": (tg.exp, tg.log1p, "g(f(x)) is not x: at element ("),
    "off by one": (lambda x: x.roll(1, 1), lambda y: y.roll(1, 1), "g(f(x)) is not x"),
    "transposed": (lambda x: x.T, lambda y: y, "g(f(x)) is float64 (4, 3)"),
    "through float32": (tg.exp, lambda y: tg.log(y.float()).double(), "g(f(x)) is not x"),
    "float32": (tg.exp, lambda y: tg.log(y).float(), "but g(f(x)) is float32"),
    "detached": (tg.exp, lambda y: tg.log(y.detach()), "has lost the gradient"),
    "detached in part": (tg.exp, lambda y: tg.log(y.detach()) + 0 * y, "the derivative of g(f(x)) is not that of x"),
    "wrong vjp": (tg.exp, half_gradient(), "the derivative of g(f(x)) is not that of x: at element"),
    "NaN": (lambda x: x * float("nan"), lambda y: y, "g(f(x)) is not x: at element (0, 0), g(f(x)) nan"),
}


@pytest.mark.parametrize("f, g, message", WRONG_PAIRS.values(), ids=WRONG_PAIRS.keys())
def test_what_is_no_inverse_is_caught(f, g, message):
    with pytest.raises(GradientError) as caught:
        check_inverse(f, g, X)
    assert message in str(caught.value)


def test_wrong_inverses_of_integers_are_caught():
    with pytest.raises(GradientError, match=r"at element \(2,\), g\(f\(x\)\) 1, x 2"):
        check_inverse(lambda i: i.clamp(max=1), lambda i: i, np.array([0, 1, 2]))


# ------------------------------------------------------------------------------------------------ batches


def network(*layers):
    return nn.Sequential(*layers)


LAYERS = {
    "Linear": (lambda: nn.Linear(4, 2), X),
    "Conv2d": (lambda: nn.Conv2d(4, 3, 3, padding=1, stride=2), IMAGES),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 2, 2, stride=2), IMAGES),
    "BatchNorm2d in eval": (lambda: nn.BatchNorm2d(4).eval(), IMAGES),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), IMAGES),
    "LayerNorm": (lambda: nn.LayerNorm(4), X),
    "Dropout in eval": (lambda: nn.Dropout(0.5).eval(), X),
    "a network": (
        lambda: network(nn.Conv2d(4, 2, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 3)),
        IMAGES,
    ),
    "attention": (lambda: lambda x: F.scaled_dot_product_attention(x, x, x), IMAGES[:, 0]),
    "a function without gradients": (lambda: lambda x: (x > 0).double(), X),
}


@pytest.mark.parametrize("make, batch", LAYERS.values(), ids=LAYERS.keys())
def test_layers_treat_items_alone(make, batch):
    check_batch_consistency(make(), tg.tensor(batch.astype("float32")))


def test_float64_layers_are_checked_exactly_and_take_several_inputs():
    layer = nn.Linear(4, 2).double()
    check_batch_consistency(layer, X)
    check_batch_consistency(lambda x, i: layer(x).gather(1, i), X, np.array([[0], [1], [1]]))
    check_batch_consistency(lambda i: F.embedding(i, tg.tensor(X)), np.array([0, 2, 2, 1]))


class Centred(nn.Module):
    """Subtracts the mean of the batch: mixes items."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class MixedRows(nn.Module):
    """A reshape in the wrong order hands numbers from item to item."""

    def forward(self, x):
        return x.T.reshape(*x.shape)


class Affine(nn.Module):
    """y = x·w, with the vjp of w as given."""

    def __init__(self, rule):
        super().__init__()
        self.weight = nn.Parameter(tg.tensor(X[0]))
        self.rule = rule

    def forward(self, x):
        @tg.op(broadcast=True)
        def scaled(x, w):
            return x * w

        scaled.vjp("x")(lambda g, w: g * w)
        scaled.vjp("w")(self.rule)
        return scaled(x, self.weight)


class GradientMixer(nn.Module):
    """Right in value; its gradient is normalised over the batch."""

    def forward(self, x):
        @tg.op
        def same(x):
            return x * 1

        same.vjp("x")(lambda g: g / g.abs().sum(0, keepdim=True))
        return same(x)


WRONG_LAYERS = {
    "BatchNorm in training": (lambda: nn.BatchNorm1d(4).double(), "item 0"),
    "softmax over the batch": (
        lambda: lambda x: F.softmax(x, 0),
        "item 0 depends on the rest of its batch: at element",
    ),
    "mean of the batch": (Centred, "item 0 depends on the rest"),
    "items mixed up": (MixedRows, "item 0 depends on the rest"),
    "items shifted": (lambda: lambda x: x.roll(1, 0), "item 0 depends on the rest"),
    "random": (lambda: nn.Dropout(0.5), "does it draw random numbers?"),
    "items lost": (lambda: lambda x: x.sum(0), "the batch has 3 items, but the result the shape (4,)"),
    "squeezed": (
        lambda: lambda x: x if len(x) > 1 else x.squeeze(0).unsqueeze(1),
        "item 0 alone gives the shape (4, 1)",
    ),
    "the last item alone": (lambda: lambda x: tg.cat([x[:-1], x[-1:] * len(x)]), "item 2 depends on the rest"),
    "parameter's gradient a mean": (
        lambda: Affine(lambda g, x: (g * x).mean(0)),
        "the gradient of parameter 0, of shape (4,), is not the sum over the items",
    ),
    "parameter's gradient of the first item": (lambda: Affine(lambda g, x: (g * x)[0]), "is not the sum"),
    "gradients mixed": (GradientMixer, "the gradient of input 0 at item 0 depends on the rest of its batch"),
}


@pytest.mark.parametrize("make, message", WRONG_LAYERS.values(), ids=WRONG_LAYERS.keys())
def test_layers_that_mix_their_batch_are_caught(make, message):
    try:
        layer = make()
        check_batch_consistency(layer, X)
    except (GradientError, ValueError) as error:  # BatchNorm itself refuses one item
        assert message in str(error) or "more than one number per channel" in str(error)
    else:
        pytest.fail("not caught")


def test_batches_that_cannot_be_compared_are_refused():
    for inputs in [(X[:1],), (np.array(1.0),), (X, X[:2]), ()]:
        with pytest.raises(ValueError, match="expected inputs of a common length n ≥ 2"):
            check_batch_consistency(lambda *x: x[0], *inputs)


@settings(max_examples=20)
@given(draw.tensors(draw.shapes(2, 3, 2, 4), real(), draw.dtypes(), draw.layouts()))
def test_elementwise_functions_are_consistent_in_every_layout(x):
    check_batch_consistency(tg.tanh, x)
