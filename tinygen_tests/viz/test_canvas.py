"""What every picture stands on: reading arrays, pixel values, files written whole, missing libraries."""

import builtins
import importlib
import os
import subprocess
import sys

import numpy as np
import pytest

from tinygen import viz
from tinygen.tensor import Tensor
from tinygen.viz import canvas

pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib")
image_module = pytest.importorskip("PIL.Image", reason="the pictures are drawn with Pillow")


def test_pixels_are_rounded_and_clipped():
    x = np.array([-0.5, 0.0, 0.25, 0.5, 1.0, 7.0]).reshape(1, 1, 2, 3)
    pixels = canvas.to_pixels(x, "x")
    assert pixels.shape == (1, 2, 3, 3) and pixels.dtype == np.uint8
    assert (pixels == pixels[..., :1]).all()
    assert pixels[0, :, :, 0].ravel().tolist() == [0, 0, 64, 128, 255, 255]


def test_pixels_in_another_range_and_as_bytes():
    x = np.array([-1.0, 0.0, 1.0, -3.0]).reshape(1, 1, 2, 2)
    assert canvas.to_pixels(x, "x", (-1, 1))[..., 0].ravel().tolist() == [0, 128, 255, 0]
    b = np.array([[0, 7], [200, 255]], dtype=np.uint8)[None, None]
    assert canvas.to_pixels(b, "b")[..., 0].ravel().tolist() == [0, 7, 200, 255]
    assert canvas.to_pixels(b, "b", (0, 510))[..., 0].ravel().tolist() == [0, 4, 100, 128]
    assert canvas.to_pixels(b > 100, "b")[..., 0].ravel().tolist() == [0, 0, 255, 255]


def test_points_are_pairs_of_finite_numbers():
    points = canvas.as_points([[1, 2]], "z")
    assert points.shape == (1, 2) and points.dtype == np.float64
    for wrong in (np.zeros(2), np.zeros((2, 3)), np.zeros((0, 2))):
        with pytest.raises(ValueError, match=r"z: expected shape \(steps, 2\), got"):
            canvas.as_points(wrong, "z", "steps")
    with pytest.raises(canvas.NotFiniteError, match="z: 1 of 2 values"):
        canvas.as_points([[np.nan, 0]], "z")


def test_colours_keep_their_order():
    x = np.zeros((1, 3, 1, 2))
    x[0, 0, 0, 0] = 1
    x[0, 2, 0, 1] = 1
    assert canvas.to_pixels(x, "x")[0, 0].tolist() == [[255, 0, 0], [0, 0, 255]]


def test_tensors_lists_and_tensors_that_require_grad():
    x = np.random.default_rng(0).random((3, 1, 2, 2)).astype(np.float32)
    for given in (Tensor(x), Tensor(x, requires_grad=True), list(x), [Tensor(i) for i in x], x.tolist()):
        assert (canvas.to_pixels(given, "x") == canvas.to_pixels(x, "x")).all()


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((2, 4, 4)), ValueError, r"x: expected shape \(N, C, H, W\).*got \(2, 4, 4\); add the channel"),
        (np.zeros((2, 2, 4, 4)), ValueError, r"C = 1 or 3, got \(2, 2, 4, 4\)"),
        (np.zeros((0, 1, 4, 4)), ValueError, r"got \(0, 1, 4, 4\)"),
        (np.zeros((1, 1, 4, 4), np.int64), TypeError, "x: expected floating numbers, bool or uint8, got int64"),
        (np.zeros((1, 1, 4, 4), complex), TypeError, "x: expected real numbers, got complex128"),
        (np.full((1, 1, 1, 1), np.inf), ValueError, "1 of 1 values are not finite"),
        ([np.zeros((1, 4, 4)), np.zeros((1, 4, 5))], ValueError, r"one shape, got \(1, 4, 4\), \(1, 4, 5\)"),
    ],
)
def test_images_that_cannot_be_drawn_are_named(images, error, message):
    with pytest.raises(error, match=message):
        canvas.to_pixels(images, "x")


def test_the_first_bad_value_is_shown_with_its_place():
    x = np.zeros((2, 1, 3, 4), np.float32)
    x[1, 0, 2, 1] = np.nan
    x[1, 0, 2, 3] = np.inf
    with pytest.raises(ValueError, match=r"x: 2 of 24 values are not finite, the first, nan, at \[1, 0, 2, 1\]"):
        canvas.to_pixels(x, "x")


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match=r"value_range: .*got \(1, 1\)"):
        canvas.to_pixels(np.zeros((1, 1, 2, 2)), "x", (1, 1))


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def fail(file):
        file.write(b"half a pict")
        raise RuntimeError("the pen broke")

    with pytest.raises(RuntimeError, match="the pen broke"):
        canvas.write_picture(target, (".png",), fail)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_folders_are_made_and_files_replaced(tmp_path):
    target = tmp_path / "new" / "folders" / "a.png"
    for content in (b"first", b"second"):
        assert canvas.write_picture(str(target), (".png",), lambda file, c=content: file.write(c)) == target
        assert target.read_bytes() == content
    assert os.listdir(target.parent) == ["a.png"]


def test_another_ending_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.png or \.svg, got 'a\.jpg'"):
        canvas.write_picture(tmp_path / "x" / "a.jpg", (".png", ".svg"), lambda file: None)
    assert os.listdir(tmp_path) == []


PICTURES = {
    "save_grid": lambda path, bad: viz.save_grid(path, np.full((2, 1, 4, 4), bad)),
    "save_rows": lambda path, bad: viz.save_rows(path, {"x": np.full((2, 1, 4, 4), bad)}),
    "save_curves": lambda path, bad: viz.save_curves(path, {"loss": np.full(3, bad)}),
    "save_latent_map": lambda path, bad: viz.save_latent_map(path, np.full((5, 2), bad)),
    "save_manifold": lambda path, bad: viz.save_manifold(path, lambda z: np.full((4, 1, 2, 2), bad), n=2),
    "save_histogram": lambda path, bad: viz.save_histogram(path, {"x": np.full(3, bad)}),
    "save_bars": lambda path, bad: viz.save_bars(path, {"x": bad}),
    "save_gif": lambda path, bad: viz.save_gif(path, np.full((2, 1, 4, 4), bad)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_no_picture_of_nan_replaces_an_old_one(name, tmp_path):
    path = tmp_path / ("a.gif" if name == "save_gif" else "a.png")
    assert PICTURES[name](path, 0.5) == path
    good = path.read_bytes()
    with pytest.raises(ValueError, match="finite"):
        PICTURES[name](path, np.nan)
    assert path.read_bytes() == good
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", PICTURES)
def test_a_missing_library_is_named_with_the_command_that_installs_it(name, tmp_path, monkeypatch):
    real = importlib.import_module

    def without(module, *args):
        if module.partition(".")[0] in ("matplotlib", "PIL"):
            raise ModuleNotFoundError(f"No module named {module!r}", name=module.partition(".")[0])
        return real(module, *args)

    monkeypatch.setattr(canvas.importlib, "import_module", without)
    path = tmp_path / ("a.gif" if name == "save_gif" else "a.png")
    with pytest.raises(ImportError, match=r'drawing needs (matplotlib|Pillow).*pip install "tinygen\[demos\]"'):
        PICTURES[name](path, 0.5)
    assert os.listdir(tmp_path) == []


def test_a_library_that_is_there_but_broken_is_not_called_missing(monkeypatch):
    def broken(module, *args):
        raise ModuleNotFoundError("No module named 'kiwisolver'", name="kiwisolver")

    monkeypatch.setattr(canvas.importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="kiwisolver"):
        canvas.optional("matplotlib.figure", "matplotlib")


def test_importing_viz_imports_no_drawing_library():
    probe = "import sys, tinygen.viz; print(sorted({'matplotlib', 'PIL', 'pandas'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_pictures_leave_pyplot_alone(tmp_path, monkeypatch):
    real = builtins.__import__

    def watch(name, *args, **kwargs):
        assert "pyplot" not in name and "pyplot" not in str(args[2] if len(args) > 2 else "")
        return real(name, *args, **kwargs)

    already = "matplotlib.pyplot" in sys.modules
    monkeypatch.setattr(builtins, "__import__", watch)
    for name in PICTURES:
        PICTURES[name](tmp_path / ("a.gif" if name == "save_gif" else "a.png"), 0.5)
    assert ("matplotlib.pyplot" in sys.modules) == already


@pytest.mark.parametrize("ending", ["svg", "pdf"])
def test_plots_are_also_drawn_as_vectors(ending, tmp_path):
    path = viz.save_curves(tmp_path / f"a.{ending}", {"loss": [3.0, 2.0, 1.0]})
    assert path.read_bytes().startswith(b"%PDF" if ending == "pdf" else b"<?xml")
