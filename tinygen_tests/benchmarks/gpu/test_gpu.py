"""The report on a GPU: written on the stand-in, section by section, whatever breaks."""

import json

import pytest

import tinygen as tg
from benchmarks import __main__ as command
from benchmarks import gpu

pytestmark = pytest.mark.cpu_only("brings the stand-in itself")


def test_a_section_that_breaks_leaves_its_traceback_and_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    def broken(*args):
        yield "before"
        raise ZeroDivisionError("mine")

    monkeypatch.setattr(gpu, "agreement", broken)
    target = tmp_path / "new" / "gpu.md"
    with tg.testing.strict_cupy():
        code = command.main(
            ["--device", "cuda", "--report", str(target), "--quick", "--only", "machine,agreement,layers,pieces"]
        )
    text = target.read_text(encoding="utf-8")
    assert code == 1 and "broken: Do training steps agree?" in capsys.readouterr().err
    assert "strict stand-in" in text and "before" in text and 'ZeroDivisionError("mine")' in text
    assert text.index("ZeroDivisionError: mine") < text.index("Convolutions by method") < text.index("Single functions")
    figures = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    assert set(figures) == {"layers", "pieces"}
    for row in [*figures["layers"].values(), *figures["pieces"].values()]:
        assert not row["problems"] and all(seconds > 0 for seconds in row["seconds"].values())


def test_options():
    assert gpu.asked(["steps", "--device", "cuda"]) and gpu.asked(["--device=cuda"])
    assert not gpu.asked(["--device", "cpu"])
    with tg.testing.strict_cupy():
        for wrong in (["--only", "speed"], ["--repeats", "0"], ["--device", "tpu"]):
            with pytest.raises(SystemExit):
                gpu.options(wrong)
    if not tg.cuda.is_available():
        with pytest.raises(SystemExit):
            gpu.main(["--device", "cuda"])
