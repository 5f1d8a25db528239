"""Every demo with ``--device cuda``, as its user would type it, on the strict stand-in for CuPy; then resumed."""

from pathlib import Path

import pytest

import tinygen as tg
from demos import __main__ as cli
from tinygen.training import read_log


@pytest.mark.parametrize("name", cli.find(cli.FOLDER))
def test_a_quick_run_and_its_resumption(name, tmp_path, request, monkeypatch, capsys):
    if request.config.getoption("--backend") == "numpy":
        pytest.skip("run with --backend strict: it takes a quarter of a minute")
    tg.set_default_device("cpu")  # as for a user, who names the device on the command line
    out = tmp_path / "run"
    command = [name, "--quick", "--device", "cuda", "--out", str(out), "--steps"]
    cli.main([*command, "6", "--checkpoint-every", "3"])
    assert [line["step"] for line in read_log(out / "log.jsonl")] == list(range(1, 7))
    pictures = [p for p in Path(out).iterdir() if p.suffix in (".png", ".gif")]
    assert pictures and all(p.stat().st_size for p in pictures)
    cli.main([*command, "6", "--resume"])
    assert [line["step"] for line in read_log(out / "log.jsonl")] == list(range(1, 7))
    assert "device  cuda" in capsys.readouterr().out
