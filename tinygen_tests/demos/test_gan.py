"""The GAN demo as its user types it: a quick run of every loss, its pictures and figures, and its resumption."""

from __future__ import annotations

import json
import os
import signal

import pytest

from demos import __main__ as cli
from tinygen.training import Run, read_log

pytestmark = pytest.mark.cpu_only("demos say where they compute; test_on_a_gpu.py runs them there")

PICTURES = ("balance", "discriminator", "gan", "loss", "nearest", "progress", "ring", "samples", "walk")


def demo(out, *words):
    cli.main(["gan", "--quick", "--out", str(out), "--batch-size", "30", *words])


def test_a_quick_run_draws_every_picture_and_reports_every_figure(tmp_path, capsys):
    demo(tmp_path, "--steps", "3", "--class", "7")
    made = set(os.listdir(tmp_path))
    expected = {f"{name}.png" for name in PICTURES} | {"training.gif", "class_7.png", "results.json", "log.jsonl"}
    assert expected <= made
    assert all((tmp_path / name).stat().st_size for name in expected)
    results = json.loads((tmp_path / "results.json").read_text())
    for name in ("confident", "Fréchet distance", "wanted class shown", "ring of 8, the same, with R1: modes"):
        assert name in results
    line = read_log(tmp_path / "log.jsonl")[0]
    assert {"loss_d", "loss_g", "d_real", "d_fake", "penalty"} <= set(line)
    out = capsys.readouterr().out
    assert out.index("gan  ") < out.index("eight Gaussians") < out.index("confident")


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    demo(whole, "--steps", "4", "--loss", "wasserstein")
    with pytest.raises(SystemExit):
        stop_after(2, lambda: demo(parts, "--steps", "4", "--loss", "wasserstein"))
    assert len(read_log(parts / "log.jsonl")) == 2
    demo(parts, "--steps", "4", "--loss", "wasserstein", "--resume")
    for name in ("checkpoint.npz", "results.json", "training.gif", "samples.png"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    # other settings are not gone on with
    with pytest.raises(SystemExit) as caught:
        demo(parts, "--steps", "4", "--loss", "hinge", "--resume")
    assert caught.value.code == 2
    assert "loss is 'wasserstein' in the file, 'hinge' here" in capsys.readouterr().err


def test_without_labels(tmp_path):
    demo(tmp_path, "--steps", "2", "--unconditional", "--loss", "hinge")
    assert "wanted class shown" not in json.loads((tmp_path / "results.json").read_text())
    assert "penalty" in read_log(tmp_path / "log.jsonl")[0]


def stop_after(step, run):
    """Run until the log has that step, then send the signal of Ctrl-C."""
    log = Run.log

    def noted(self, **values):
        log(self, **values)
        if self.step + 1 == step:
            signal.raise_signal(signal.SIGINT)

    Run.log = noted
    try:
        run()
    finally:
        Run.log = log


@pytest.mark.parametrize("words, message", [
    (["--class", "10"], "argument --class: invalid choice"),
    (["--class", "3", "--unconditional"], "--class D asks for labels, --unconditional for none"),
    (["--loss", "vanilla"], "argument --loss: invalid choice: 'vanilla'"),
    (["--loss", "wasserstein", "--batch-size", "900"], "--batch-size 900: 2 critic steps need as many batches"),
])
def test_wrong_words_are_one_line(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        demo(tmp_path, *words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
