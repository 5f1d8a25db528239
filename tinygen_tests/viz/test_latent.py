"""Latent maps and manifolds: the projection, the colours, the grid, exact pixels."""

from statistics import NormalDist

import numpy as np
import pytest

from tinygen import viz
from tinygen.recording import is_grad_enabled
from tinygen.tensor import Tensor
from tinygen.viz import latent

pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib")
image_module = pytest.importorskip("PIL.Image", reason="the pictures are read with Pillow")


@pytest.fixture
def figures(monkeypatch):
    """The figures that would have been saved."""
    drawn = []
    monkeypatch.setattr(latent, "save_figure", lambda path, figure, *suffixes: drawn.append(figure))
    return drawn


def inside(figure):
    figure.canvas.draw()
    box = figure.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_principal_axes_are_the_eigenvectors_of_the_covariance():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200, 5)) @ rng.standard_normal((5, 5)) + 3
    mean, axes, explained = viz.principal_axes(Tensor(z), k=3)
    values, vectors = np.linalg.eigh(np.cov(z.T))
    assert mean == pytest.approx(z.mean(axis=0))
    assert explained == pytest.approx(values[::-1][:3] / values.sum())
    assert np.abs(axes @ vectors[:, ::-1][:, :3]) == pytest.approx(np.eye(3), abs=1e-9)
    assert axes @ axes.T == pytest.approx(np.eye(3), abs=1e-12)


def test_principal_axes_do_not_flip_with_the_order_of_the_points():
    z = np.random.default_rng(0).standard_normal((50, 4)) * [4, 3, 2, 1]
    _, axes, _ = viz.principal_axes(z)
    _, reversed_axes, _ = viz.principal_axes(z[::-1])
    assert reversed_axes == pytest.approx(axes, abs=1e-9)
    assert (axes[[0, 1], np.abs(axes).argmax(axis=1)] > 0).all()


def test_principal_axes_of_equal_points_explain_nothing():
    assert viz.principal_axes(np.ones((4, 3)))[2].tolist() == [0, 0]


@pytest.mark.parametrize("z", [np.zeros(3), np.zeros((3, 1)), np.zeros((1, 3))])
def test_principal_axes_need_enough_points_and_dimensions(z):
    with pytest.raises(ValueError, match=r"N and D of at least k = 2"):
        viz.principal_axes(z)


def test_each_point_has_the_colour_of_its_class(figures):
    from matplotlib.colors import to_rgba

    z = np.random.default_rng(0).standard_normal((60, 2))
    labels = np.random.default_rng(1).choice([3, 5, 7], 60)
    viz.save_latent_map("a.png", Tensor(z), labels, class_names=["three", "five", "seven"], label_name="digit")
    axes = figures[0].axes[0]
    points = axes.collections[0]
    where = {
        tuple(point): tuple(colour)
        for point, colour in zip(points.get_offsets().tolist(), points.get_facecolor(), strict=True)
    }
    assert len(where) == 60
    for point, label in zip(z, labels, strict=True):
        assert where[tuple(point)][:3] == to_rgba(latent.PALETTE[[3, 5, 7].index(label)])[:3]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["three", "five", "seven"]
    texts = {t.get_text(): t.get_position() for t in axes.texts}
    assert texts["five"] == pytest.approx(np.median(z[labels == 5], axis=0))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z₁", "z₂")


def test_more_dimensions_are_projected_and_the_axes_say_so(figures):
    z = np.random.default_rng(0).standard_normal((80, 6)) * [9, 5, 1, 1, 1, 1] + 2
    viz.save_latent_map("a.png", z)
    axes = figures[0].axes[0]
    mean, plane, explained = viz.principal_axes(z)
    assert np.asarray(axes.collections[0].get_offsets()) == pytest.approx((z - mean) @ plane.T)
    assert axes.get_xlabel() == f"principal axis 1 ({100 * explained[0]:.0f} % of the variance)"


def test_floating_labels_are_a_scale(figures):
    z = np.random.default_rng(0).standard_normal((30, 2))
    viz.save_latent_map("a.png", z, z[:, 0] ** 2, label_name="z₁²")
    plot, bar = figures[0].axes
    assert np.asarray(plot.collections[0].get_array()) == pytest.approx(z[:, 0] ** 2)
    assert bar.get_ylabel() == "z₁²" and plot.get_legend() is None


def test_twenty_classes_have_twenty_colours():
    assert len({tuple(c) for c in latent.class_colours(20)}) == 20


@pytest.mark.parametrize("title", ["", "A title, gjpqy"])
def test_no_label_is_cut(figures, title):
    z = np.random.default_rng(0).standard_normal((40, 3)) * 1e4
    viz.save_latent_map("a.png", z, np.arange(40) % 10, title, class_names=[f"class number {i}" for i in range(10)])
    viz.save_latent_map("a.png", z, z[:, 0], title, label_name="a scale")
    for quantiles in (False, True):
        viz.save_manifold(
            "a.png", lambda z: np.zeros((9, 1, 8, 8)), 3, (-2.5, 2.25), (-2.5, 2.25), quantiles, title=title
        )
    viz.save_manifold("a.png", lambda z: np.zeros((9, 1, 8, 8)), 3, (-1, 1), (-2e6, 2e6), title=title)
    assert [inside(figure) for figure in figures] == [True] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"z": np.zeros((4, 1))}, r"D ≥ 2, got \(4, 1\)"),
        ({"z": np.zeros((0, 2))}, r"got \(0, 2\)"),
        ({"z": np.zeros((4, 2)), "labels": np.zeros(3, int)}, r"labels: expected shape \(4,\).*got \(3,\)"),
        ({"z": np.zeros((21, 2)), "labels": np.arange(21)}, "21 classes"),
        ({"z": np.zeros((4, 2)), "labels": np.full(4, np.nan)}, "labels: 4 of 4 values are not finite"),
        ({"z": np.zeros((4, 2)), "labels": [0, 0, 1, 1], "class_names": ["a"]}, "expected 2 names.*got 1"),
        ({"z": np.zeros((4, 2)), "class_names": ["a"]}, "expected 0 names"),
    ],
)
def test_maps_that_cannot_be_drawn_are_named(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        viz.save_latent_map(tmp_path / "a.png", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_decoder_is_asked_once_about_the_plane():
    asked = []

    def decode(z):
        asked.append((z.numpy(), is_grad_enabled()))
        return np.zeros((9, 1, 2, 2))

    origin, axes = np.array([1.0, 2.0, 3.0]), np.array([[1.0, 0, 0], [0, 0, 2.0]])
    with pytest.raises(ValueError, match="ends in"):
        viz.save_manifold("never.jpg", decode, 3, (-1, 1), (0, 4), origin=origin, axes=axes)
    ((z, recording),) = asked
    assert z.dtype == np.float32 and z.shape == (9, 3) and not recording
    for row, y in enumerate((4, 2, 0)):
        for column, x in enumerate((-1, 0, 1)):
            assert z[3 * row + column].tolist() == [1 + x, 2, 3 + 2 * y]


def test_quantiles_are_evenly_spaced_in_probability():
    coordinates = latent._spaced(-1.5, 2.0, 5, True)
    p = np.array([NormalDist().cdf(x) for x in coordinates])
    assert np.diff(p) == pytest.approx(np.full(4, (p[-1] - p[0]) / 4), rel=1e-9)
    assert coordinates[[0, -1]] == pytest.approx([-1.5, 2.0])


def test_coordinates_are_written_shortly():
    assert [latent._short(v) for v in (-1e-17, 0.0, -2.0, 0.8541, -123456.0)] == ["0", "0", "−2", "0.85", "−1.2e+05"]


@pytest.mark.parametrize(("n", "scale", "shape"), [(3, 8, (8, 8)), (5, 3, (6, 4)), (4, None, (28, 28))])
def test_a_manifold_shows_every_pixel_as_a_square(n, scale, shape, tmp_path):
    tiles = np.random.default_rng(0).integers(0, 256, (n * n, 3, *shape), dtype=np.uint8)
    path = viz.save_manifold(tmp_path / "a.png", lambda z: tiles, n, scale=scale)
    with image_module.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    scale = scale or round(800 / (n * max(shape)))
    rim = max(1, scale // 4)
    h, w = shape[0] * scale + 2 * rim, shape[1] * scale + 2 * rim
    for k in range(n * n):
        top, left = 25 + k // n * h + rim, 115 + k % n * w + rim
        tile = pixels[top : top + h - 2 * rim, left : left + w - 2 * rim]
        assert (tile == tiles[k].transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 1}, "n: expected at least 2"),
        ({"n": 3, "x_range": (1, 1)}, "x_range"),
        ({"n": 3, "y_range": (2, 1)}, "y_range"),
        ({"n": 3, "axes": np.eye(3)}, r"axes: expected shape \(2, D\), got \(3, 3\)"),
        ({"n": 3, "origin": np.zeros(3)}, r"origin: expected shape \(2,\).*got \(3,\)"),
        ({"n": 4}, r"decode\(z\): expected 16 images.*got 9"),
    ],
)
def test_manifolds_that_cannot_be_drawn_are_named(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        viz.save_manifold(tmp_path / "a.png", lambda z: np.zeros((9, 1, 4, 4)), **arguments)
    assert list(tmp_path.iterdir()) == []
