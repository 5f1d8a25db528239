"""The script of corrupted files, short; and that it tells what is refused from what is let through, dies or hangs."""

import random
import sys
from pathlib import Path

import pytest

import tinygen as tg
from benchmarks.reliability import corruption

pytest.importorskip("safetensors", reason="safetensors is not installed", exc_type=ImportError)
pytestmark = [
    pytest.mark.cpu_only("about files"),
    pytest.mark.skipif(sys.platform == "win32", reason="watches a process by select"),
]
MNIST = Path(__file__).resolve().parents[4] / "shared" / "data" / "mnist"


def test_sixty_damaged_files_are_refused(capsys):
    known = ["--mnist", str(MNIST)] if (MNIST / "t10k-images-idx3-ubyte.gz").exists() else []
    assert corruption.main(["--files", "60", "--seed", "1", *known]) == 0
    out = capsys.readouterr().out
    assert "in all 60 files: {'refused': " in out and "checkpoint" in out and "idx.gz" in out
    assert "ACCEPTED" not in out


@pytest.mark.parametrize("damage", corruption.DAMAGES)
def test_every_damage_damages_and_is_repeatable(damage):
    data, other = bytes(range(256)) * 9, bytes(reversed(range(256))) * 9
    changed = 0
    for seed in range(30):
        first, second = (damage(data, random.Random(seed), other) for _ in range(2))
        assert first == second
        changed += first != data
    assert changed > 20


@pytest.fixture
def reader(tmp_path):
    (tmp_path / "originals").mkdir()
    tg.save({"a": tg.ones(3)}, tmp_path / "originals" / "0.save")
    (tmp_path / "x.save").write_bytes((tmp_path / "originals" / "0.save").read_bytes())
    return corruption.Reader(tmp_path / "originals"), tmp_path / "x.save"


def test_the_verdicts(reader, monkeypatch):
    reader, path = reader
    assert reader.verdict("save", path) == ("harmless", "")
    tg.save({"a": tg.zeros(3)}, path)
    assert reader.verdict("save", path) == ("ACCEPTED", "other values")
    path.write_bytes(b"PK")
    assert reader.verdict("save", path)[0] == "refused"
    for error, verdict in [(tg.CheckpointError("no name"), "ERROR"), (ValueError(str(path)), "ERROR"),
                           (tg.CheckpointError(str(path)), "refused"), (SystemExit(1), "ERROR")]:  # fmt: skip

        def load(path, error=error):
            raise error

        monkeypatch.setattr(tg, "load", load)
        assert reader.verdict("save", path)[0] == verdict


def test_a_refusal_that_changes_an_object_is_no_refusal(reader, monkeypatch):
    reader, path = reader
    reader.expected["checkpoint"] = ""

    def load(path, things, meta):
        things["model"][0].weight.data += 1
        raise tg.CheckpointError(str(path))

    monkeypatch.setattr(corruption, "load_checkpoint", load)
    assert reader.verdict("checkpoint", path) == ("ACCEPTED", "an object has changed")


@pytest.mark.parametrize("does, verdict", [
    ("input(); import os; os.abort()", "CRASH"), ("input(); import time; time.sleep(9)", "HANG"),
])  # fmt: skip
def test_a_reader_that_dies_or_hangs_is_seen(tmp_path, monkeypatch, does, verdict):
    monkeypatch.setattr(corruption, "PATIENCE", -19.7)  # and twenty seconds more for a reader that starts
    watched = corruption.Watched(tmp_path)
    watched.command = [sys.executable, "-c", does]
    assert watched.ask("save", tmp_path)[0] == verdict and watched.process is None
