"""Training steps of whole models are timed in every way that is here."""

import pytest

import tinygen as tg
from benchmarks import nets
from benchmarks.gpu import models

pytestmark = pytest.mark.cpu_only("brings the stand-in itself")


def test_steps_are_timed_plain_and_captured(monkeypatch):
    figures = {}
    monkeypatch.setattr(nets, "FAMILIES", {"dense autoencoder": nets.dense_autoencoder})
    with tg.testing.strict_cupy():
        pieces = list(models.steps_section((2,), 8, 1, 0.001, ["tinygen", "tinygen, captured", "torch"], True, figures))
    rows = pieces[1][1]
    assert len(rows) == 3 * len(nets.FAMILIES)
    for row in figures["steps exact"].values():
        assert {"tinygen", "tinygen, captured"} <= set(row["seconds"])
        assert set(row["problems"]) <= {"torch"}
