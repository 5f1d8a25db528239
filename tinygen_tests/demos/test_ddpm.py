"""The diffusion demo as its user types it: a quick run with its pictures and figures, and its resumption."""

from __future__ import annotations

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


def test_a_quick_run_draws_every_picture_and_reports_every_figure(tmp_path, capsys):
    demo(tmp_path, "--steps", "3", "--class", "7", "--guidance", "2")
    made = set(os.listdir(tmp_path))
    expected = {f"{name}.png" for name in PICTURES} | {"chain.gif", "class_7.png", "results.json", "log.jsonl"}
    assert expected <= made
    assert all((tmp_path / name).stat().st_size for name in expected)
    results = json.loads((tmp_path / "results.json").read_text())
    for name in ("confident", "Fréchet distance", "wanted class shown", "bits per dimension", "smallest class share"):
        assert name in results
    assert {"loss", "loss_points"} <= set(read_log(tmp_path / "log.jsonl")[0])
    assert "Fréchet ratio" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    demo(whole, "--steps", "5")
    log = Run.log

    def interrupted(self, **values):
        log(self, **values)
        if self.step + 1 == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "log", interrupted)
    with pytest.raises(SystemExit):
        demo(parts, "--steps", "5")
    monkeypatch.setattr(Run, "log", log)
    assert len(read_log(parts / "log.jsonl")) == 3
    demo(parts, "--steps", "5", "--resume")
    for name in ("checkpoint.npz", "results.json", "progress.png", "samples.png", "score.png"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


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
