"""The VAE demo as its user types it: a quick run, its pictures and figures, its options, and its resumption."""

from __future__ import annotations

import json
import os
import signal

import pytest

from demos import __main__ as cli
from tinygen.training import Run, read_log

pytestmark = pytest.mark.cpu_only("demos say where they compute; test_on_a_gpu.py runs them there")

PICTURES = (
    "active_units classes latent_map loss manifold nearest path priors reconstructions samples vae"
).split()


def demo(out, *words):
    cli.main(["vae", "--quick", "--out", str(out), "--batch-size", "30", *words])


def test_a_quick_run_draws_every_picture_and_reports_every_figure(tmp_path, capsys):
    demo(tmp_path, "--steps", "3", "--class", "7")
    made = set(os.listdir(tmp_path))
    expected = {f"{name}.png" for name in PICTURES} | {"training.gif", "class_7.png", "results.json", "log.jsonl"}
    assert expected <= made
    assert all((tmp_path / name).stat().st_size for name in expected)
    results = json.loads((tmp_path / "results.json").read_text())
    for name in ("confident", "Fréchet distance", "wanted class shown", "active units, plain (of 8)",
                 "log-likelihood, 20 importance samples", "ELBO of unseen digits, plain (nats)"):
        assert name in results
    log = read_log(tmp_path / "log.jsonl")
    assert {"loss", "reconstruction", "kl", "kl_plain", "kl_flat", "kl_told", "perplexity_symbols"} <= set(log[0])
    assert "loss_symbols" not in log[1], "the VQ-VAE has every other turn"
    assert all(line["loss"] == pytest.approx(line["reconstruction"] + 0.3 * line["kl"], rel=1e-5) for line in log)
    assert "confident" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    demo(whole, "--steps", "4", "--network", "conv", "--beta", "1")
    with pytest.raises(SystemExit):
        stop_after(2, lambda: demo(parts, "--steps", "4", "--network", "conv", "--beta", "1"))
    assert len(read_log(parts / "log.jsonl")) == 2
    demo(parts, "--steps", "4", "--network", "conv", "--beta", "1", "--resume")
    for name in ("checkpoint.npz", "results.json", "training.gif", "samples.png"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    with pytest.raises(SystemExit) as caught:
        demo(parts, "--steps", "4", "--network", "conv", "--resume")
    assert caught.value.code == 2
    assert "beta is 1.0 in the file, 0.3 here" in capsys.readouterr().err


@pytest.mark.parametrize("words, said", [
    (("--beta", "-1"), "error: --beta -1.0: must be 0 or more"),
    (("--class", "12"), "error: argument --class: invalid choice"),
    (("--network", "big"), "error: argument --network: invalid choice"),
])
def test_options_that_make_no_sense_are_one_line(words, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        demo(tmp_path / "none", *words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(said)
    assert not (tmp_path / "none").exists()


def stop_after(step, run):
    """Run until that step is logged, then send the signal of Ctrl-C."""
    log = Run.log

    def noted(self, **values):
        log(self, **values)
        if self.step + 1 == step and "kl_told" in values:
            signal.raise_signal(signal.SIGINT)

    Run.log = noted
    try:
        run()
    finally:
        Run.log = log
