"""The graph of a computation: what is in it, its DOT text, its drawing, its refusals."""

import numpy as np
import pytest

from tinygen import viz
from tinygen.op import op
from tinygen.recording import no_grad
from tinygen.tensor import Tensor
from tinygen.viz import graph

pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib")


@op(broadcast=True)
def times(a, b):
    """a·b, declared here so that the test knows the op's name."""
    return a * b


@times.vjp("a")
def _(g, b):
    return times(g, b)


@times.vjp("b")
def _(g, a):
    return times(g, a)


@op
def total(a):
    """Σ a."""
    return a.sum()


@total.vjp("a")
def _(g, a):
    return times(g, Tensor(np.ones(a.shape, a.dtype)))


def leaf(*shape):
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32), requires_grad=True)


@pytest.fixture
def figures(monkeypatch):
    """The figures that would have been saved."""
    drawn = []
    monkeypatch.setattr(graph, "save_figure", lambda path, figure: drawn.append(figure))
    return drawn


def test_the_text_lists_every_vertex_and_edge():
    x, w = leaf(4, 3), leaf(3)
    y = times(x, w)
    text = viz.computation_graph(total(times(y, y)), {"x": x, "w": w})
    assert text.splitlines() == [
        "digraph computation {",
        "  rankdir=TB;",
        '  v0 [label="total\\nscalar", shape=ellipse];',
        '  v1 [label="times\\n4×3", shape=ellipse];',
        '  v2 [label="times\\n4×3", shape=ellipse];',
        '  v3 [label="x\\n4×3 float32", shape=box];',
        '  v4 [label="w\\n3 float32", shape=box];',
        "  v1 -> v0;",
        "  v2 -> v1;",
        "  v2 -> v1;",
        "  v3 -> v2;",
        "  v4 -> v2;",
        "}",
    ]


def test_constants_are_not_in_it_and_names_are_escaped():
    x = leaf(2)
    text = viz.computation_graph(times(x, 3.0), {'a "quoted" \\ name': x})
    assert text.count("shape=box") == 1
    assert '[label="a \\"quoted\\" \\\\ name\\n2 float32", shape=box]' in text


def test_a_long_chain_and_a_deep_diamond_are_read_without_recursion():
    y = leaf(2)
    for _ in range(20_000):
        y = times(y, 1.0)
    vertices, edges = graph.trace(y)
    assert len(vertices) == 20_001 and len(edges) == 20_000
    y = leaf(2)
    for _ in range(50):
        y = times(y, y)
    vertices, edges = graph.trace(y)
    assert len(vertices) == 51 and len(edges) == 100


def test_a_tensor_without_history_is_refused():
    with pytest.raises(TypeError, match="expected a Tensor, got ndarray"):
        viz.computation_graph(np.zeros(3))
    for tensor in (leaf(2), Tensor(np.zeros(2))):
        with pytest.raises(ValueError, match="nothing was recorded"):
            viz.computation_graph(tensor)
    with no_grad(), pytest.raises(ValueError, match="nothing was recorded"):
        viz.computation_graph(times(leaf(2), 2.0))


def test_a_freed_graph_is_refused():
    y = times(leaf(2), 2.0)
    y.grad_fn.edges = None  # what a backward sweep leaves behind
    with pytest.raises(RuntimeError, match="freed by a backward sweep.*times"):
        viz.computation_graph(y)


def test_inputs_are_drawn_above_and_repeated_edges_counted(figures):
    x, w = leaf(4, 3), leaf(3)
    y = times(x, w)
    viz.save_graph("a.png", total(times(y, y)), {"x": x, "w": w}, title="A graph")
    texts = {t.get_text(): t.get_position() for t in figures[0].axes[0].texts}
    assert {"x", "w", "total", "×2", "A graph"} <= set(texts)
    assert texts["x"][1] == texts["w"][1] > texts["×2"][1] > texts["total"][1]


def test_a_shortcut_does_not_lift_an_op_above_its_inputs(figures):
    """x reaches the last op directly and through a longer way: its place is above the longer way."""
    x = leaf(3)
    y = x
    for _ in range(3):
        y = times(y, 2.0)
    for result in (times(x, y), times(y, x)):
        viz.save_graph("a.png", result, {"x": x})
    for figure in figures:
        texts = [(t.get_text(), t.get_position()[1]) for t in figure.axes[0].texts]
        assert max(texts, key=lambda pair: pair[1])[0] == "x"
        assert len({y for text, y in texts if text == "times"}) == 4


def test_texts_fit_into_their_boxes_and_the_figure(figures):
    w = leaf(128, 64, 3, 3)
    viz.save_graph("a.png", total(times(w, w)), {"encoder.layers.0.convolution.weight": w}, title="gjpqy")
    figure = figures[0]
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    axes = figure.axes[0]
    boxes = [p.get_window_extent(renderer) for p in axes.patches if type(p).__name__ == "FancyBboxPatch"]
    for text in axes.texts:
        extent = text.get_window_extent(renderer)
        assert extent.x0 >= 0 and extent.y0 >= 0
        assert extent.x1 <= figure.bbox.x1 and extent.y1 <= figure.bbox.y1
        if text.get_text() not in ("×2", "gjpqy"):
            assert any(
                b.x0 <= extent.x0 and extent.x1 <= b.x1 and b.y0 <= extent.y0 and extent.y1 <= b.y1 for b in boxes
            ), text.get_text()


def test_a_graph_too_large_to_read_is_refused(tmp_path):
    y = leaf(2)
    for _ in range(200):
        y = times(y, 1.0)
    with pytest.raises(ValueError, match="201 vertices, more than max_vertices=150.*computation_graph"):
        viz.save_graph(tmp_path / "a.png", y)
    assert list(tmp_path.iterdir()) == []
    assert viz.save_graph(tmp_path / "a.svg", times(leaf(2), 2.0)).stat().st_size > 0


def test_gradients_and_known_values_are_written_and_nothing_is_touched():
    """L = (a·b)·(a·b) at a = 2, b = −3: ∂L/∂(ab) = 2ab = −12, ∂L/∂a = −12·b = 36, ∂L/∂b = −12·a = −24."""
    a, b = (Tensor(np.array(value), requires_grad=True) for value in (2.0, -3.0))
    e = times(a, b)
    L = times(e, e)
    text = viz.computation_graph(L, {"a": a, "b": b, "e": e}, gradients=True)
    assert "\n".join(line for line in text.splitlines() if "label" in line) == "\n".join([
        '  v0 [label="times\\nscalar\\ngrad 1", shape=ellipse];',
        '  v1 [label="e: times\\nscalar\\n= −6\\ngrad −12", shape=ellipse];',
        '  v2 [label="a\\nscalar float64\\n= 2\\ngrad 36", shape=box];',
        '  v3 [label="b\\nscalar float64\\n= −3\\ngrad −24", shape=box];',
    ])
    assert a.grad is None and "grad 36" in viz.computation_graph(L, gradients=True), "the graph is still there"
    L.backward()
    assert a.grad.item() == 36


def test_the_gradient_of_many_numbers_is_its_norm(figures):
    x = leaf(4, 3)
    viz.save_graph("a.png", total(times(x, 2.0)), {"x": x}, gradients=True)
    texts = [t.get_text() for t in figures[0].axes[0].texts]
    assert texts.count("grad 1") == 1 and f"‖grad‖ {2 * 12**0.5:.3g}" in texts and f"‖grad‖ {12**0.5:.3g}" in texts


def test_gradients_of_many_results_are_refused():
    with pytest.raises(RuntimeError, match="not one number"):
        viz.computation_graph(times(leaf(2), 2.0), gradients=True)
