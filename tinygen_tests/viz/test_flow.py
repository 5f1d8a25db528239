"""Gradient flow: the size that it says is the gradient's, and what is missing is seen."""

import math

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn, viz
from tinygen.viz import flow
from tinygen_tests.draws import stream
from tinygen_tests.judge import host

pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib")


@pytest.fixture
def figures(monkeypatch):
    """The figures that would have been saved."""
    drawn = []
    monkeypatch.setattr(flow, "save_figure", lambda path, figure: drawn.append(figure))
    return drawn


def test_it_is_the_root_mean_square_of_each_gradient():
    model = nn.Sequential(nn.Linear(3, 4, rng=stream(0)), nn.Linear(4, 2, rng=stream(1)))
    model[1].bias.requires_grad = False
    before = viz.gradient_flow(model)
    assert list(before) == ["0.weight", "0.bias", "1.weight"] and all(math.isnan(size) for size in before.values())
    (model(tg.randn(5, 3, rng=stream(2))) ** 2).sum().backward()
    found = viz.gradient_flow(model.named_parameters())
    for name, w in model.named_parameters():
        if w.requires_grad:
            assert found[name] == pytest.approx(np.sqrt((host(w.grad) ** 2).mean()), rel=1e-6)


def test_a_chain_of_sigmoids_loses_at_least_three_quarters_of_the_gradient_in_each(figures):
    """σ' ≤ ¼: with weights of 1 the gradient of layer k is at most ¼ of that of layer k + 1's input."""
    w = [nn.Parameter(tg.ones(1)) for _ in range(5)]
    x = tg.full((1,), 0.3)
    for weight in w:
        x = tg.sigmoid(weight * x)
    x.sum().backward()
    sizes = list(viz.gradient_flow((str(i), weight) for i, weight in enumerate(w)).values())
    for earlier, later in zip(sizes[1:], sizes[2:]):  # from the second on: the first's input is another number
        assert earlier < later / 3
    viz.save_gradient_flow("a.png", {"sigmoid": dict(zip("abcde", sizes))})
    (axes,) = figures[0].axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), sizes)
    assert [label.get_text() for label in axes.get_xticklabels()] == list("abcde") and axes.get_yscale() == "log"


def test_what_is_missing_is_marked_and_named(figures):
    viz.save_gradient_flow("a.png", {"net": {"a": 1.0, "b": 0.0, "c": math.nan, "d": math.inf}})
    (axes,) = figures[0].axes
    low, high = axes.get_ylim()
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["net", "net: none", "net: not finite"]
    assert axes.lines[1].get_xydata().tolist() == [[1, low], [2, low]]
    assert axes.lines[2].get_xydata().tolist() == [[3, high]]


def test_networks_with_other_names_are_counted_by_position(figures):
    viz.save_gradient_flow("a.png", {"one": {"a": 1.0, "b": 2.0}, "other": {"c": 3.0, "d": 0.1}})
    (axes,) = figures[0].axes
    assert "parameter" in axes.get_xlabel() and len(axes.lines) == 2


def test_a_file_is_written(tmp_path):
    assert viz.save_gradient_flow(tmp_path / "a.png", {"n": {"w": 0.5}}, title="One").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("call, error, message", [
    (lambda path: viz.gradient_flow([]), ValueError, "at least one parameter that requires a gradient"),
    (lambda path: viz.gradient_flow([tg.ones(2)]), TypeError, r"pairs \(name, Tensor\), got Tensor"),
    (lambda path: viz.save_gradient_flow(path, {}), ValueError, "at least one, got none"),
    (lambda path: viz.save_gradient_flow(path, {"a": {}}), ValueError, "expected name → size"),
    (lambda path: viz.save_gradient_flow(path, {"a": [1.0]}), ValueError, "expected name → size"),
    (lambda path: viz.save_gradient_flow(path, {"a": {"w": -1.0}}), ValueError, "one size ≥ 0"),
    (lambda path: viz.save_gradient_flow(path, {"a": {"w": 1.0}, "b": {"w": 1.0, "v": 1.0}}), ValueError,
     "as many parameters in each, got 'a' 1, 'b' 2"),
    (lambda path: viz.save_gradient_flow(path, {"a": {"w": 0.0}}), ValueError, "nothing to draw"),
])
def test_errors(tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
