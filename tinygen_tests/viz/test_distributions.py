"""Histograms and bars: heights, edges, and bad input."""

import numpy as np
import pytest

from tinygen import viz
from tinygen.tensor import Tensor
from tinygen.viz import distributions

pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib")


@pytest.fixture
def figures(monkeypatch):
    """The figures that would have been saved."""
    drawn = []
    monkeypatch.setattr(distributions, "save_figure", lambda path, figure: drawn.append(figure))
    return drawn


def inside(figure):
    figure.canvas.draw()
    box = figure.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


@pytest.mark.parametrize("logx", [False, True])
def test_heights_are_shares_on_common_bins(figures, logx):
    rng = np.random.default_rng(0)
    sets = {"normal": rng.gamma(2, 1, 500), "anomaly": rng.gamma(9, 30, 40)}
    viz.save_histogram("a.png", {k: Tensor(v) for k, v in sets.items()}, bins=13, logx=logx)
    axes = figures[0].axes[0]
    drawn = [patch.get_data() for patch in axes.patches]
    edges = drawn[0].edges
    together = np.concatenate(list(sets.values()))
    assert len(edges) == 14 and (edges[0], edges[-1]) == (together.min(), together.max())
    spacing = np.diff(np.log(edges) if logx else edges)
    assert spacing == pytest.approx(np.full(13, spacing.mean()))
    for data, values in zip(drawn[::2], sets.values(), strict=True):
        assert (data.edges == edges).all()
        assert data.values.sum() == pytest.approx(1.0)
        assert data.values[0] == ((values >= edges[0]) & (values < edges[1])).mean()
    assert axes.get_xscale() == ("log" if logx else "linear")
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["normal (500)", "anomaly (40)"]


def test_a_threshold_is_a_line_with_its_value(figures):
    viz.save_histogram("a.png", {"x": [1.0, 2.0]}, threshold=1.25)
    axes = figures[0].axes[0]
    assert axes.lines[0].get_xdata() == [1.25, 1.25]
    assert axes.get_legend().get_texts()[-1].get_text() == "threshold 1.25"


@pytest.mark.parametrize("logx", [False, True])
def test_equal_numbers_still_have_a_bin(figures, logx):
    viz.save_histogram("a.png", {"x": [3.0, 3.0]}, bins=4, logx=logx)
    assert figures[0].axes[0].patches[0].get_data().values.sum() == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"series": {}}, "at least one set"),
        ({"series": {"a": []}}, r"series\['a'\]: expected shape \(n,\) with n ≥ 1, got \(0,\)"),
        ({"series": {"a": np.zeros((2, 2))}}, r"got \(2, 2\)"),
        ({"series": {"a": [1.0, np.inf]}}, r"series\['a'\]: 1 of 2 values are not finite"),
        ({"series": {"a": [1.0]}, "bins": 0}, "bins: expected at least 1, got 0"),
        ({"series": {"a": [1.0, 0.0]}, "logx": True}, "logx: expected positive numbers"),
        ({"series": {"a": [1.0]}, "logx": True, "threshold": -1.0}, "logx: expected positive"),
    ],
)
def test_histograms_that_cannot_be_drawn_are_named(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        viz.save_histogram(tmp_path / "a.png", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_bars_have_their_height_and_their_number(figures):
    viz.save_bars("a.png", {"0": 0.75, "1": np.float32(0.5)}, {"chance": 0.5}, ylabel="ROC AUC")
    axes = figures[0].axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.75, 0.5]
    assert [t.get_text() for t in axes.texts] == ["0.75", "0.50"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "1"]
    assert list(axes.lines[0].get_ydata()) == [0.5, 0.5]
    assert axes.get_legend().get_texts()[0].get_text() == "chance"
    assert axes.get_ylim()[0] == 0


def test_bars_below_zero_and_other_limits(figures):
    viz.save_bars("a.png", {"a": -2.0, "b": 1.0})
    low, high = figures[0].axes[0].get_ylim()
    assert low < -2 and high > 1
    assert figures[0].axes[0].texts[0].get_text() == "−2.00"
    viz.save_bars("a.png", {"a": 0.9}, ylim=(0.5, 1.0))
    assert figures[1].axes[0].get_ylim() == (0.5, 1.0)
    viz.save_bars("a.png", {"a": 0.0})
    assert figures[2].axes[0].get_ylim() == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": {}}, "at least one bar"),
        ({"values": {"a": np.nan}}, "values: 1 of 1 values are not finite"),
        ({"values": {"a": 1.0}, "reference": {"b": np.inf}}, "reference: 1 of 1"),
        ({"values": {"a": 1.0}, "ylim": (1, 0)}, "ylim"),
    ],
)
def test_bars_that_cannot_be_drawn_are_named(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        viz.save_bars(tmp_path / "a.png", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_no_label_is_cut(figures):
    viz.save_histogram("a.png", {"a long name": [1e6, 2e6]}, threshold=1.5e6, xlabel="x", title="A title, gjpqy")
    viz.save_bars(
        "a.png", {"k-means on pixels": 0.1, "autoencoder and k-means": 1.0}, {"a line with a long name": 0.5},
        xlabel="method", ylabel="accuracy", title="T", ylim=(0, 1),
    )  # fmt: skip
    viz.save_bars("a.png", {str(i): 123456.0 for i in range(10)}, number_format=",.2f")
    assert [inside(figure) for figure in figures] == [True] * 3
