"""The script that shows every fault: one of them for real, and that a wrong message is not passed over."""

import sys

import pytest

faults = pytest.importorskip("benchmarks.reliability.faults", reason="needs Linux", exc_type=ImportError)
pytestmark = [
    pytest.mark.cpu_only("about processes and files"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux"),
]


def test_a_fault_is_shown_with_its_message(capsys):
    assert faults.main(["missing data folder"]) == 0
    out = capsys.readouterr().out
    assert "error: --data-dir no such folder: there is no such folder\n  exit code 2" in out
    assert "1 faults, 0 not as they should be" in out


@pytest.mark.parametrize("said, wrong", [
    (faults.Said(2, "error: so"), None), (faults.Said(1, "error: so"), "expected exit code 2"),
    (faults.Said(2, "error: other"), "the words 'so'"), (faults.Said(2, "Traceback so"), "expected"),
    (AssertionError("lost"), "FAILED: lost"),
])  # fmt: skip
def test_what_is_not_as_it_should_be_fails(monkeypatch, capsys, said, wrong):
    def fault(stage):
        if isinstance(said, AssertionError):
            raise said
        return said, 2, "so"

    monkeypatch.setattr(faults, "FAULTS", {"a fault": fault})
    assert faults.main([]) == (wrong is not None)
    assert wrong is None or wrong in capsys.readouterr().out


def test_words_that_mean_no_fault_are_no_success(capsys):
    assert faults.main(["nothing of the kind"]) == 1


def test_every_fault_that_was_promised_is_there():
    promised = """disk full; read-only; missing data; checkpoint cut short; bit of a checkpoint; both checkpoints; lock
        another model; newer format; IDX file cut short; bit of an IDX file; signal SIGINT; signal SIGTERM"""
    for words in promised.replace("\n", ";").split(";"):
        assert any(words.strip() in name for name in faults.FAULTS), words
