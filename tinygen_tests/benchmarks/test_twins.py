"""The PyTorch twins of the demos run, learn, draw what can be judged, and say what they need."""

import builtins

import numpy as np
import pytest

import tinygen as tg
from benchmarks.twins import __main__ as twins

pytestmark = pytest.mark.cpu_only("PyTorch computes here")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One thread and few steps of the chain, and PyTorch's own number of threads for the tests after these."""
    torch = pytest.importorskip("torch", reason="the twins are PyTorch programs")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("benchmarks.twins.ddpm.T", 25)
    yield torch
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", twins.NAMES)
def test_a_short_run_is_judged(name, capsys):
    figures = twins.main([name, "--seconds", "0.1", "--samples", "16", "--threads", "1"])
    assert "Fréchet ratio" in figures and np.isfinite(list(figures.values())).all()
    out = capsys.readouterr().out
    assert f"{name} twin on digits (train)" in out and "16 samples" in out and "confident" in out


def test_steps_are_counted_where_the_time_is_not(capsys):
    twins.main(["vae", "--steps", "7", "--seconds", "0", "--samples", "16", "--threads", "1"])
    assert "7 steps of batch size 128" in capsys.readouterr().out


@pytest.mark.parametrize("name", twins.NAMES)
@pytest.mark.parametrize("side", [8, 28])
def test_images_of_both_sizes_come_back_in_their_range(name, side, quick):
    file = twins.importlib.import_module(f"benchmarks.twins.{name}")
    quick.manual_seed(0)
    twin = file.Twin((1, side, side))
    twin.step(quick.rand(4, 1, side, side))
    drawn = twin.draw(3)
    assert drawn.shape == (3, 1, side, side)
    assert 0 <= drawn.min() and drawn.max() <= 1


@pytest.mark.parametrize(("name", "term", "steps"), [("vae", "loss", 150), ("ddpm", "loss", 60)])
def test_it_learns(name, term, steps, quick):
    file = twins.importlib.import_module(f"benchmarks.twins.{name}")
    quick.manual_seed(0)
    twin = file.Twin((1, 8, 8))
    x = quick.from_numpy(np.array(tg.data.digits("train").images[:64]))
    values = [float(twin.step(x)[term]) for _ in range(steps)]
    assert np.mean(values[-10:]) < 0.8 * np.mean(values[:5])


def test_without_torch_it_says_so(monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SystemExit) as end:
        twins.main(["vae"])
    assert end.value.code == 2
    assert "install torch" in capsys.readouterr().err


def test_a_missing_folder_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        twins.main(["vae", "--data", "mnist", "--data-dir", str(tmp_path)])
    assert end.value.code == 2
    assert "error: --data mnist" in capsys.readouterr().err
