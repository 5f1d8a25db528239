"""The benchmark measures what it says, by turns; its tables say what was measured; a failure stops nothing."""

import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import costs, nets, peers, plots, processes, report, timing, works
from benchmarks.device import CPU
from benchmarks.peers.base import NotPossible, Peer
from benchmarks.setting import Setting
from tinygen.kernels.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.cpu_only("times of the CPU")


@pytest.fixture(autouse=True)
def threads_as_before(monkeypatch):
    before = get_num_threads()
    monkeypatch.setattr(peers, "set_threads", set_num_threads)  # the tests' process keeps its cores
    yield
    set_num_threads(before)


def row(name="add", flops=0.0, **seconds):
    return timing.Row(name, {library: list(np.atleast_1d(t)) for library, t in seconds.items()}, flops=flops)


class Clock(CPU):
    """Takes a work's word for how long it took: no test waits, and none fails because the machine is busy."""

    def time(self, work, repeats):
        said = [work() for _ in range(repeats)][-1]
        seconds = said if isinstance(said, float) else 0.001
        return seconds, 2 * seconds

    def settle(self):
        pass


def test_the_processors_clocks():
    wall, cpu = CPU().time(lambda: time.sleep(0.002), 3)
    assert wall >= 0.002 > 0 <= cpu
    assert CPU().time(lambda: sum(range(100_000)), 1)[1] > 0


def test_medians_of_turns_and_their_ratio():
    said = iter([9.0, 9.0, 7.0, 1.0, 7.0, 3.0, 2.0])  # two before the clock counts, one that wakes the first turn
    works = {"tinygen": lambda: next(said), "torch": lambda: 4.0}
    found = timing.measure("scripted", works, 4, 0.0, longest=1000, device=Clock())
    assert found.times == {"tinygen": [1.0, 7.0, 3.0, 2.0], "torch": [4.0] * 4}
    assert found.seconds("tinygen") == 2.5 and found.ratio("torch") == found.cpu_ratio("torch") == 2.5 / 4
    assert math.isnan(found.ratio("jax")) and math.isnan(found.cpu_ratio("jax")) and math.isnan(found.seconds("jax"))


def test_quartiles_are_of_the_ratios_turn_by_turn():
    found = row(tinygen=[1.0, 2, 3, 4, 5], torch=[1.0, 1, 1, 1, 1])
    assert found.ratio("torch") == 3 and found.quartiles("torch") == (2, 4)
    assert all(math.isnan(q) for q in row(tinygen=[1.0, 2], torch=[1.0, 2]).quartiles("torch"))


def test_libraries_take_turns_and_short_work_is_repeated():
    calls = []
    works = {name: lambda name=name: calls.append(name) for name in "ab"}
    timing.measure("turns", works, turns=3, least=0.005, device=Clock())
    turns = "".join(calls[4:])  # after two of each, which are not measured
    assert len(turns.replace("a", "")) > 3 and turns.count("ba") == 2, "a…ab…ba…ab…ba…ab…b"
    with pytest.raises(ValueError, match="no library can do nothing"):
        timing.measure("nothing", {})


def test_a_slow_library_has_fewer_turns_and_a_failing_one_its_reason():
    def fails():
        raise ZeroDivisionError("of no use")

    def cannot():
        raise NotPossible("it lacks the op")

    works = {"tinygen": lambda: None, "torch": lambda: 20.0, "mygrad": lambda: 200.0, "jax": fails, "dezero": cannot}
    found = timing.measure("mixed", works, turns=9, least=0.0, longest=100, device=Clock())
    assert {name: len(times) for name, times in found.times.items()} == {"tinygen": 9, "torch": 2, "mygrad": 1}
    assert found.why_not == {
        "jax": "failed: ZeroDivisionError: of no use", "dezero": "not possible: it lacks the op",
    }


def test_the_geometric_mean_lets_a_half_and_a_double_cancel():
    assert timing.geometric_mean([0.5, 2.0, math.nan]) == pytest.approx(1)
    assert math.isnan(timing.geometric_mean([math.nan]))


@pytest.mark.parametrize("size", [16, 28])
@pytest.mark.parametrize("family", nets.FAMILIES)
def test_the_costs_are_those_that_pytorch_counts(family, size):
    pytest.importorskip("torch", reason="PyTorch counts the operations independently")
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    weights, x = nets.weights(family, size, 16), works.images(3, size)
    step = peers.load(["torch"])[0]["torch"].train(family, weights, x)
    # (its counter does not know its own fused attention on the CPU; as matrix products it does)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        step()
    flops, moved = costs.training_step(family, weights, len(x), size)
    assert flops == pytest.approx(counted.get_total_flops(), rel=0.01)
    assert moved > 28 * sum(w.size for name, w in weights.items() if "running" not in name and "num" not in name)


def test_the_costs_of_one_operation():
    assert costs.operation("conv2d", [(2, 3, 8, 8), (5, 3, 3, 3)], (2, 5, 8, 8))[0] == 3 * 2 * 2 * 64 * 5 * 3 * 9
    assert costs.operation("conv_transpose2d", [(2, 3, 4, 4), (3, 5, 4, 4)], (2, 5, 8, 8))[0] == 6 * 2 * 16 * 3 * 5 * 16
    assert costs.operation("linear", [(2, 3), (5, 3)], (2, 5))[0] == 6 * 2 * 3 * 5
    assert costs.operation("attention", [(2, 4, 7, 5)] * 3, (2, 4, 7, 5))[0] == 3 * 2 * 2 * 2 * 4 * 7 * 7 * 5
    assert costs.operation("relu", [(10,)], (10,)) == (0, 4 * (30 + 20))


def test_a_slow_library_is_left_out_after_a_trial(monkeypatch):
    class Slow(Peer):
        name, quick = "slow", False

        def train(self, family, weights, x):
            return lambda: 0.5 * len(x)

    monkeypatch.setattr(works, "PATIENCE", 10)
    setting = Setting(peers.load(["tinygen"])[0] | {"slow": Slow()}, device=Clock(), turns=1)
    found = works.step(setting, "dense autoencoder", batch=64)
    assert "too slow: a step of 8 images took 4.0 s" in found.why_not["slow"] and found.times["tinygen"]
    assert "slow" in works.step(setting, "dense autoencoder", batch=16).times


def test_the_table_and_the_summary_say_what_was_measured():
    results = {"rates": {"flops": 1e9, "bytes": 1e9}}
    rows = [row("first", 1e6, tinygen=[2e-3] * 3, torch=[4e-3] * 3, jax=[1e-3] * 3)]
    rows.append(row("second", tinygen=3e-6, torch=2e-6))
    rows[1].why_not["jax"] = "not possible: it lacks the op"
    text = report.section("steps", rows, results)
    assert "| first | 2 ms | 4 ms (0.50) | 1 ms (**2.00**) | 0.50–0.50 | 50 % |" in text
    assert "| second | 3 µs | 2 µs (**1.50**) | — |" in text
    assert "JAX, second: not possible: it lacks the op." in text
    assert "PyTorch 0.87, JAX 2.00" in text
    said = report.summary(results, {"steps": rows})
    assert "training steps: 0.87 of PyTorch's" in said and "largest 1.50 (second)" in said
    assert "ahead of the other peers in 0 of 1 figures; behind JAX at first (2.00)" in said


def test_a_report_goes_between_the_marks_of_a_page(tmp_path):
    page = tmp_path / "speed.md"
    page.write_text("# Title\n<!-- figures -->\nold\n<!-- /figures -->\nend\n")
    report.write(page, "new\n")
    assert page.read_text() == "# Title\n<!-- figures -->\n\nnew\n\n<!-- /figures -->\nend\n"
    report.write(page, "newer\n")
    assert "new\n\n" not in page.read_text() and page.read_text().startswith("# Title\n")
    report.write(tmp_path / "other.md", "all")
    assert (tmp_path / "other.md").read_text() == "all"


def test_the_command_measures_prints_and_writes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(processes, "rates", lambda quick: {"flops": 1e9, "bytes": 1e9})
    out = tmp_path / "out"
    arguments = ["small", "--quick", "--repeats", "1", "--peers", "tinygen,torch", "--threads", "1", "--out", str(out)]
    assert command.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "| add, sum, backward |" in shown and "threads 1" in shown
    results = json.loads((out / "results.json").read_text())
    found = results["rows"]["small"]
    assert [r["name"] for r in found] == ["add", "matmul", "add, sum, backward", "linear, relu, sum, backward"]
    assert all(len(r["times"]["tinygen"]) == 3 and min(r["times"]["tinygen"]) > 0 for r in found)
    assert "| matmul |" in (out / "report.md").read_text()

    page = tmp_path / "page.md"
    again = ["--results", str(out / "results.json"), "--report", str(page), "--out", str(out), "--plots", "no"]
    assert command.main(again) == 0
    assert "| matmul |" in page.read_text()


def test_a_report_of_a_busy_machine_says_so():
    about = {"command": "c", "date": "d"}
    rest = {"why_not": {"jax": "not installed"}, "rates": {"flops": 1, "bytes": 1}}
    assert "no figures to quote" in report.page({"about": about | {"load before": "5.9"}} | rest, {})
    quiet = report.page({"about": about | {"load before": "0.1"}} | rest, {})
    assert "no figures to quote" not in quiet and "JAX: not installed." in quiet


def test_an_interrupt_keeps_what_was_measured(tmp_path, capsys, monkeypatch):
    def part(setting):
        yield row("first", tinygen=1.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "PARTS", {"steps": part, "ops": part})
    assert command.main(["--quick", "--peers", "tinygen", "--plots", "no", "--out", str(tmp_path)]) == 0
    assert "stopped in steps" in capsys.readouterr().err
    results = json.loads((tmp_path / "results.json").read_text())
    assert [found["name"] for found in results["rows"]["steps"]] == ["first"] and "ops" not in results["rows"]
    assert "| first |" in (tmp_path / "report.md").read_text()


def test_the_page_on_speed_has_the_marks_that_the_figures_go_between():
    page = Path(__file__).parents[2] / "docs" / "speed.md"
    text = page.read_text(encoding="utf-8")
    assert text.count(report.BEGIN) == text.count(report.END) == 1 and text.index(report.BEGIN) < text.index(report.END)


def test_plots_are_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="draws the plots")
    rows = {
        "steps": [row("first", tinygen=1.0, torch=2.0), row("second", tinygen=1.0, jax=0.5)],
        "growth": [row(f"DCGAN, batch {n}", tinygen=n / 100, torch=n / 90) for n in (16, 64, 128)],
        "import": [row("import", tinygen=1.0)],
    }
    drawn = plots.draw(tmp_path / "images", rows)
    assert [path.name for path in drawn] == ["speed-steps.png", "speed-growth.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    results = {"about": {"command": "c", "date": "d"}, "why_not": {}, "rates": {"flops": 1, "bytes": 1}}
    page = report.page(results, rows, drawn)
    assert re.findall(r"\]\(images/(.*?)\)", page) == ["speed-steps.png", "speed-growth.png"]


def test_numbers_of_threads_and_peak_memory_come_from_fresh_processes():
    setting = Setting(peers.load(["tinygen"])[0], threads=1, turns=1, quick=True)
    found = list(processes.threads(setting))
    assert [r.name for r in found] == [f"{family}, threads 1" for family in nets.FAMILIES]
    assert all(r.seconds("tinygen") > 0 for r in found)
    memory = next(iter(processes.memory(setting)), None)
    if memory is None:
        pytest.skip("peak memory is read from Linux's /proc")
    assert 1e5 < memory.seconds("tinygen") < 1e9, memory.why_not


@pytest.mark.parametrize(
    "wrong", [["large"], ["--threads", "0"], ["--repeats", "0"], ["--peers", "tensorflow"], ["--device", "abacus"],
              ["--results", "nowhere.json"], ["--report", "no_such_folder/x.md"]],
    ids=" ".join,
)  # fmt: skip
def test_what_the_command_does_not_know_is_an_error_that_says_what_it_knows(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(wrong)
    assert stopped.value.code == 2
    assert wrong[-1] in capsys.readouterr().err
