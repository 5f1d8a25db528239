"""The benchmark measures what it says, by turns, and both libraries do the same work."""

import json
import math
import time

import numpy as np
import pytest

import tinygen as tg
from benchmarks import __main__ as command
from benchmarks import nets, peers, timing, works
from tinygen.kernels.threads import get_num_threads

pytestmark = pytest.mark.cpu_only("times of the CPU")


@pytest.fixture(autouse=True)
def threads_as_before():
    before = get_num_threads()
    yield
    peers.set_threads(before)


def test_medians_of_turns_and_their_ratio():
    row = timing.measure("sleep", {"tinygen": lambda: time.sleep(0.002), "torch": lambda: time.sleep(0.004)}, 5, 0.0)
    assert 0.002 <= row.seconds["tinygen"] < row.seconds["torch"]
    assert row.ratio("torch") == row.seconds["tinygen"] / row.seconds["torch"] < 1
    assert math.isnan(row.ratio("jax")) and math.isnan(row.cpu_ratio("jax"))
    assert row.cpu["tinygen"] < 0.001, "sleeping takes no processor time"


def test_libraries_take_turns_and_short_work_is_repeated():
    calls = []
    timing.measure("turns", {name: lambda name=name: calls.append(name) for name in "ab"}, turns=3, least=1e-5)
    turns = "".join(calls[4:])  # after two of each, which are not measured
    assert len(turns.replace("a", "")) > 3 and turns.count("ba") == 2, "a…ab…ba…ab…ba…ab…b"
    with pytest.raises(ValueError, match="no library can do nothing"):
        timing.measure("nothing", {})


def test_the_geometric_mean_lets_a_half_and_a_double_cancel():
    assert timing.geometric_mean([0.5, 2.0, math.nan]) == pytest.approx(1)
    assert math.isnan(timing.geometric_mean([math.nan]))


@pytest.mark.parametrize("name", nets.FAMILIES)
def test_every_family_takes_a_step(name):
    tg.manual_seed(0)
    step = nets.FAMILIES[name](tg, works.images(tg, 4, 8), width=16)
    assert all(math.isfinite(step().item()) for _ in range(2))


def test_both_libraries_compute_the_same_from_the_same_weights():
    library = pytest.importorskip("torch", reason="PyTorch is the other library")
    ours, theirs = nets.unet(tg, 16), nets.unet(library, 16)
    theirs.load_state_dict({k: library.from_numpy(np.array(v.numpy())) for k, v in ours.state_dict().items()})
    x, t = np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32), np.float32([10, 500])
    y = ours(tg.tensor(x), tg.tensor(t)).detach().numpy()
    np.testing.assert_allclose(y, theirs(*map(library.from_numpy, (x, t))).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_command_prints_a_table_and_writes_its_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(works, "rates", lambda: {"flops": 1e9, "bytes": 1e9})
    monkeypatch.setattr(works, "PARTS", {"small": lambda: iter([timing.Row("add", {"tinygen": 1e-6, "torch": 2e-6})])})
    assert command.main(["small", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "add" in shown and "1 µs" in shown and "0.50" in shown
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["small"][0]["seconds"] == {"tinygen": 1e-6, "torch": 2e-6}
    assert (tmp_path / "small.png").stat().st_size
    for wrong in (["large"], ["--threads", "0"]):
        with pytest.raises(SystemExit) as stopped:
            command.main(wrong)
        assert stopped.value.code == 2
