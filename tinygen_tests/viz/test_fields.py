"""Fields of arrows: where they begin, where they lead, how dark they are, and bad input."""

import numpy as np
import pytest

from tinygen import viz
from tinygen.tensor import Tensor
from tinygen.viz import fields

pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib")


@pytest.fixture
def figures(monkeypatch):
    """The figures that would have been saved."""
    drawn = []
    monkeypatch.setattr(fields, "save_figure", lambda path, figure: drawn.append(figure))
    return drawn


AT = np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
ARROWS = np.array([[3.0, 0.0], [0.0, 0.01], [-4.0, 3.0], [0.0, 0.0]])


def test_arrows_begin_where_they_were_measured_lead_where_they_should_and_are_darker_the_longer(figures):
    viz.save_fields("a.png", {"field": {"at": Tensor(AT), "arrows": Tensor(ARROWS)}, "points": {"points": AT}})
    first, second = figures[0].axes
    (quiver,) = [c for c in first.collections if hasattr(c, "U")]
    np.testing.assert_allclose(quiver.XY, AT)
    drawn = np.stack([quiver.U, quiver.V], 1)
    lengths = np.linalg.norm(drawn, axis=1)
    np.testing.assert_allclose(lengths[:3], lengths[0])
    np.testing.assert_allclose(drawn[:3] / lengths[0], ARROWS[:3] / np.linalg.norm(ARROWS[:3], axis=1)[:, None])
    assert lengths[3] == 0, "no length, no direction"
    shades = quiver.get_array()
    assert shades[2] > shades[0] > shades[1] > shades[3] > quiver.get_clim()[0] and shades[2] <= quiver.get_clim()[1]
    assert not [c for c in second.collections if hasattr(c, "U")]
    np.testing.assert_allclose(second.collections[0].get_offsets(), AT)
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["field", "points"]


def test_all_panels_show_the_same_square(figures):
    viz.save_fields("a.png", {"a": {"points": AT}, "b": {"points": 3 * AT}})
    viz.save_fields("a.png", {"a": {"points": AT}}, limit=7.0)
    for axes in figures[0].axes:
        assert axes.get_xlim() == axes.get_ylim() == pytest.approx((-3.15, 3.15))
    assert figures[1].axes[0].get_ylim() == (-7, 7)


def test_a_file_is_written(tmp_path):
    path = viz.save_fields(tmp_path / "a.png", {"a": {"at": AT, "arrows": ARROWS, "points": AT}}, title="All")
    assert path.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("panels, limit, message", [
    ({}, None, "at least one, got none"),
    ({"a": {}}, None, "expected points, or at and arrows"),
    ({"a": {"at": AT}}, None, r"got \['at'\]"),
    ({"a": {"points": AT, "colour": AT}}, None, r"got \['colour', 'points'\]"),
    ({"a": {"points": AT[:, :1]}}, None, r"shape \(N, 2\), got \(4, 1\)"),
    ({"a": {"points": AT[:0]}}, None, r"shape \(N, 2\), got \(0, 2\)"),
    ({"a": {"at": AT, "arrows": AT[:2]}}, None, "must have one shape"),
    ({"a": {"points": AT + np.inf}}, None, "not finite"),
    ({"a": {"points": AT}}, 0.0, "above 0, got 0.0"),
])
def test_errors(tmp_path, panels, limit, message):
    with pytest.raises(ValueError, match=message):
        viz.save_fields(tmp_path / "a.png", panels, limit=limit)
    assert not list(tmp_path.iterdir())
