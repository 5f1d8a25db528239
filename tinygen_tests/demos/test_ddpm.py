"""The diffusion demo as its user types it: a quick run with its pictures and figures, and its resumption."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal

import pytest

from demos import __main__ as cli
from tinygen.training import Run, read_log

pytestmark = pytest.mark.cpu_only("demos say where they compute; test_on_a_gpu.py runs them there")

PICTURES = ("chain", "ddpm", "guidance", "inpainting", "interpolation", "loss", "progress", "samples", "score")


def demo(out, *words):
    cli.main(["ddpm", "--quick", "--out", str(out), "--batch-size", "30", *words])


OPTIONS = ("--steps", "5", "--class", "7", "--guidance", "2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run from beginning to end, and what it printed."""
    folder, printed = tmp_path_factory.mktemp("whole"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        demo(folder, *OPTIONS)
    return folder, printed.getvalue()


def test_a_quick_run_draws_every_picture_and_reports_every_figure(whole):
    folder, printed = whole
    made = set(os.listdir(folder))
    expected = {f"{name}.png" for name in PICTURES} | {"chain.gif", "class_7.png", "results.json", "log.jsonl"}
    assert expected <= made
    assert all((folder / name).stat().st_size for name in expected)
    results = json.loads((folder / "results.json").read_text())
    for name in ("confident", "Fréchet distance", "wanted class shown", "bits per dimension", "smallest class share"):
        assert name in results
    assert {"loss", "loss_points"} <= set(read_log(folder / "log.jsonl")[0])
    assert "Fréchet ratio" in printed


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path, monkeypatch, whole):
    log = Run.log

    def interrupted(self, **values):
        log(self, **values)
        if self.step + 1 == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "log", interrupted)
    with pytest.raises(SystemExit):
        demo(tmp_path, *OPTIONS)
    monkeypatch.setattr(Run, "log", log)
    assert len(read_log(tmp_path / "log.jsonl")) == 3
    demo(tmp_path, *OPTIONS, "--resume")
    for name in ("checkpoint.npz", "results.json", "progress.png", "samples.png", "score.png"):
        assert (whole[0] / name).read_bytes() == (tmp_path / name).read_bytes(), name


@pytest.mark.parametrize("words, message", [
    (["--class", "10"], "argument --class: invalid choice"),
    (["--guidance", "-1"], "--guidance -1.0: must be 0 or more"),
    (["--guidance", "nan"], "--guidance nan: must be 0 or more"),
])
def test_wrong_words_are_one_line(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        demo(tmp_path, *words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
