"""Grids: torchvision's layout, exact pixels under enlargement, texts that are not cut."""

import numpy as np
import pytest

from tinygen import viz
from tinygen.tensor import Tensor
from tinygen.viz import grids

pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib")
image_module = pytest.importorskip("PIL.Image", reason="the pictures are drawn with Pillow")


def pixels_of(path):
    with image_module.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_make_grid_places_every_pixel():
    x = np.arange(5 * 3 * 2 * 4, dtype=np.float32).reshape(5, 3, 2, 4)
    grid = viz.make_grid(Tensor(x), nrow=3, padding=1, pad_value=-1.0)
    assert grid.shape == (3, 2 * (2 + 1) + 1, 3 * (4 + 1) + 1) and grid.dtype == np.float32
    expected = np.full_like(grid, -1.0)
    expected[:, 1:3, 1:5], expected[:, 1:3, 6:10], expected[:, 1:3, 11:15] = x[0], x[1], x[2]
    expected[:, 4:6, 1:5], expected[:, 4:6, 6:10] = x[3], x[4]
    assert (grid == expected).all()


def test_make_grid_repeats_grey_and_gives_one_image_without_a_border():
    x = np.random.default_rng(0).random((4, 1, 3, 3))
    grid = viz.make_grid(x, nrow=2, padding=0)
    assert grid.shape == (3, 6, 6) and (grid[0] == grid[1]).all() and (grid[0] == grid[2]).all()
    for one in (x[:1], x[0], x[0, 0]):
        single = viz.make_grid(one)
        assert single.shape == (3, 3, 3) and (single == x[0]).all()
    assert not np.shares_memory(viz.make_grid(np.zeros((1, 3, 2, 2))), x)


def test_make_grid_has_fewer_columns_than_nrow_for_few_images():
    assert viz.make_grid(np.zeros((3, 3, 4, 4)), nrow=8, padding=2).shape == (3, 8, 20)


def test_make_grid_normalises_over_the_batch_or_each_image():
    x = np.stack([np.linspace(0, 1, 4), np.linspace(2, 6, 4)]).reshape(2, 1, 2, 2)
    whole = viz.make_grid(x, padding=0, normalize=True)
    assert whole.min() == 0 and whole.max() == 1 and whole[0, 0, 2] == pytest.approx(2 / 6)
    each = viz.make_grid(x, padding=0, normalize=True, scale_each=True)
    assert each[0, :, :2].ravel().tolist() == pytest.approx(each[0, :, 2:].ravel().tolist())
    ranged = viz.make_grid(x, padding=0, normalize=True, value_range=(1, 2))
    assert set(np.unique(ranged)) == {0.0, 1.0}


def test_make_grid_keeps_the_dtype_and_the_input():
    for dtype in (np.float16, np.float32, np.float64):
        x = np.random.default_rng(0).random((4, 1, 3, 3)).astype(dtype)
        before = x.copy()
        assert viz.make_grid(x, normalize=True).dtype == dtype
        assert viz.make_grid(x).dtype == dtype
        assert (x == before).all()
    assert viz.make_grid(np.zeros((2, 1, 3, 3), np.uint8)).dtype == np.uint8
    assert viz.make_grid(np.eye(3, dtype=np.uint8)[None, None], normalize=True).dtype == np.float32


def test_make_grid_of_one_value_does_not_divide_by_zero():
    assert (viz.make_grid(np.full((2, 1, 2, 2), 3.0), padding=0, normalize=True) == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": np.zeros(3)}, r"got \(3,\)"),
        ({"images": np.zeros((0, 1, 2, 2))}, r"got \(0, 1, 2, 2\)"),
        ({"images": np.zeros((2, 1, 2, 2)), "nrow": 0}, "nrow=0"),
        ({"images": np.zeros((2, 1, 2, 2)), "padding": -1}, "padding=-1"),
        ({"images": np.zeros((2, 1, 2, 2)), "value_range": (0, 1)}, "only with normalize=True"),
        ({"images": np.zeros((2, 1, 2, 2)), "scale_each": True}, "only with normalize=True"),
        ({"images": np.full((2, 1, 2, 2), np.nan), "normalize": True}, "8 of 8 values are not finite"),
        ({"images": np.zeros((2, 1, 2, 2)), "normalize": True, "value_range": (2, 1)}, "low < high"),
    ],
)
def test_make_grid_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        viz.make_grid(**arguments)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 5])
def test_save_grid_shows_every_pixel_as_a_square(channels, scale, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (7, channels, 4, 6), dtype=np.uint8)
    picture = pixels_of(viz.save_grid(tmp_path / "a.png", x, ncols=3, scale=scale))
    gap, margin = grids.GAP, grids.MARGIN
    h, w = 4 * scale, 6 * scale
    assert picture.shape == (2 * margin + 3 * h + 2 * gap, 2 * margin + 3 * w + 2 * gap, 3)
    for k in range(7):
        top, left = margin + k // 3 * (h + gap), margin + k % 3 * (w + gap)
        tile = picture[top : top + h, left : left + w]
        expected = np.broadcast_to(x[k].transpose(1, 2, 0), (4, 6, 3)).repeat(scale, 0).repeat(scale, 1)
        assert (tile == expected).all()
    assert (picture[margin + 2 * (h + gap) :, margin + w + gap :] == 255).all()


def test_small_images_are_enlarged_by_themselves():
    assert [grids.default_scale(h, w) for h, w in ((8, 8), (28, 28), (32, 32), (64, 64), (8, 64))] == [7, 2, 2, 1, 1]


def test_value_range_maps_minus_one_to_black(tmp_path):
    x = np.full((1, 1, 8, 8), -1.0)
    picture = pixels_of(viz.save_grid(tmp_path / "a.png", x, value_range=(-1, 1)))
    assert (picture[grids.MARGIN : -grids.MARGIN, grids.MARGIN : -grids.MARGIN] == 0).all()


def test_texts_take_room_and_are_not_cut(tmp_path):
    x = np.zeros((4, 1, 8, 8))
    bare = pixels_of(viz.save_grid(tmp_path / "a.png", x, ncols=2))
    texts = {
        "captions": ["short", "a caption that is wider than its image", "two\nlines", "gjpqy, ∇log p(x), σ²"],
        "row_labels": ["first", "a long label of the second row"],
        "column_labels": ["α", "β"],
        "title": "W" * 60,
    }
    for name, text in texts.items():
        picture = pixels_of(viz.save_grid(tmp_path / f"{name}.png", x, ncols=2, **{name: text}))
        assert picture.shape[0] * picture.shape[1] > bare.shape[0] * bare.shape[1]
        rim = grids.MARGIN // 2
        for side in (picture[:rim], picture[-rim:], picture[:, :rim], picture[:, -rim:]):
            assert (side == 255).all(), name


def test_a_wrong_number_of_texts_is_refused(tmp_path):
    x = np.zeros((4, 1, 8, 8))
    with pytest.raises(ValueError, match="captions: expected 4 texts, got 3"):
        viz.save_grid(tmp_path / "a.png", x, captions=["a", "b", "c"])
    with pytest.raises(ValueError, match="row_labels: expected 2 texts, got 1"):
        viz.save_grid(tmp_path / "a.png", x, ncols=3, row_labels=["a"])
    with pytest.raises(ValueError, match="column_labels: expected 3 texts, got 4"):
        viz.save_grid(tmp_path / "a.png", x, ncols=3, column_labels=list("abcd"))
    for wrong in ({"ncols": 0}, {"scale": 0}):
        with pytest.raises(ValueError, match="ncols ≥ 1 and scale ≥ 1"):
            viz.save_grid(tmp_path / "a.png", x, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_save_rows_stacks_the_rows_in_order(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (3, 1, 4, 4), dtype=np.uint8)
    colour = np.random.default_rng(1).integers(0, 256, (3, 3, 4, 4), dtype=np.uint8)
    picture = pixels_of(viz.save_rows(tmp_path / "a.png", {"grey": grey, "colour": Tensor(colour)}, scale=8))
    step = 32 + grids.GAP
    top, left = grids.MARGIN, picture.shape[1] - grids.MARGIN - 3 * step + grids.GAP
    for row, images in enumerate((grey, colour)):
        for column in range(3):
            tile = picture[top + row * step :, left + column * step :][:32:8, :32:8]
            assert (tile == np.broadcast_to(images[column].transpose(1, 2, 0), (4, 4, 3))).all()
    assert (picture[:, :left] < 128).any(), "the labels are missing"


def test_save_rows_refuses_rows_that_do_not_match(tmp_path):
    with pytest.raises(ValueError, match="at least one row"):
        viz.save_rows(tmp_path / "a.png", {})
    rows = {"a": np.zeros((3, 1, 4, 4)), "b": np.zeros((2, 1, 4, 4))}
    with pytest.raises(ValueError, match="'a': 3 of 4×4, 'b': 2 of 4×4"):
        viz.save_rows(tmp_path / "a.png", rows)
    with pytest.raises(ValueError, match=r"rows\['noisy'\]: expected shape"):
        viz.save_rows(tmp_path / "a.png", {"noisy": np.zeros((3, 4, 4))})
