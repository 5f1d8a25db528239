"""Steps whose gradient is not finite: skipped and counted without a trace, or the end of the run with a hint."""

import numpy as np
import pytest

import tinygen as tg
import tinygen.nn.functional as F
from tinygen import anomaly, nn, optim
from tinygen.training import NonFiniteError, Run, read_log
from tinygen_tests.draws import stream

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the nan that is put in


def net():
    rng = stream(0)
    return nn.Sequential(nn.Linear(3, 4, rng=rng), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1, rng=rng))


def states(*things):
    """Every number in the states, to compare."""

    def numbers(state):
        if isinstance(state, dict):
            return [n for key, value in state.items() for n in numbers(value)]
        if isinstance(state, (list, tuple)):
            return [n for value in state for n in numbers(value)]
        return [state.numpy().tolist() if isinstance(state, tg.Tensor) else state]

    return [numbers(thing.state_dict()) for thing in things]


def train(folder, steps, bad=(), good=None, resume=False, **options):
    """Train on noise; the batches of the steps ``bad`` hold nan, and steps not in ``good`` are not taken at all."""
    model = net()
    adam = optim.Adam(model.parameters(), lr=0.01)
    run = Run(folder, steps, {"model": model, "adam": adam}, checkpoint_every=3, progress=False, resume=resume,
              **{"log_every": 1} | options)
    for step in run:
        rng = stream(step)
        x = tg.randn(8, 3, rng=rng)
        if step in bad:
            x[2, 1] = np.nan
        if good is not None and step not in good:
            continue
        loss = F.mse_loss(model(x), tg.randn(8, 1, rng=rng))
        adam.zero_grad()
        loss.backward()
        adam.step()
        run.log(loss=loss)
    return model, adam, run


def test_a_skipped_step_leaves_no_trace_but_its_count(tmp_path):
    model, adam, run = train(tmp_path / "a", 10, bad=(4, 5, 8), skip_non_finite=2)
    as_if = train(tmp_path / "b", 10, good={1, 2, 3, 6, 7, 9, 10})
    assert run.skipped == 3 and states(model, adam) == states(*as_if[:2])
    log = read_log(tmp_path / "a" / "log.jsonl")
    assert {line["step"]: line["skipped"] for line in log if "skipped" in line} == {4: 1, 5: 2, 8: 3}
    assert [line["step"] for line in log if not np.isfinite(line["loss"])] == [4, 5, 8]
    assert adam.guard is None


def test_the_count_goes_on_after_a_resume(tmp_path):
    train(tmp_path, 6, bad=(2,), skip_non_finite=1)
    model, adam, run = train(tmp_path, 12, bad=(2, 8), skip_non_finite=1, resume=True)
    assert run.skipped == 2
    assert states(model, adam) == states(*train(tmp_path / "whole", 12, bad=(2, 8), skip_non_finite=1)[:2])


def test_too_many_in_a_row_end_the_run_with_the_last_good_checkpoint(tmp_path):
    with pytest.raises(NonFiniteError) as caught:
        train(tmp_path, 10, bad=(5, 6, 7), skip_non_finite=2)
    said = str(caught.value)
    assert "nan or infinite in 3 steps in a row, the last of them 7" in said
    assert "checkpoint.npz holds step 6" in said and "tg.detect_anomaly()" in said
    assert read_log(tmp_path / "log.jsonl")[-1] | {"time": 0} == {"step": 7, "time": 0, "loss": pytest.approx(
        np.nan, nan_ok=True), "skipped": 3}


def test_without_skipping_the_first_one_ends_it_with_a_hint(tmp_path):
    with pytest.raises(NonFiniteError, match=r"loss is nan at step 5.*holds step 3, the last good one.*learning rate"):
        train(tmp_path, 10, bad=(5,))


@pytest.mark.cpu_only("a loss on a GPU is not waited for")
def test_a_bad_loss_ends_the_run_at_once_and_not_when_the_log_is_written(tmp_path):
    with pytest.raises(NonFiniteError, match="loss is nan at step 4"):
        train(tmp_path, 20, bad=(4,), log_every=10)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4]


def test_one_of_two_players_is_skipped_alone(tmp_path):
    a, b = nn.Linear(2, 1), nn.Linear(2, 1)
    adams = [optim.SGD(side.parameters(), lr=0.1) for side in (a, b)]
    before = states(a, b)
    run = Run(tmp_path, 1, {"a": a, "b": b, "x": adams[0], "y": adams[1]}, progress=False, skip_non_finite=1)
    for _ in run:
        (a(tg.tensor([[np.nan, 1.0]])).sum() + b(tg.ones(1, 2)).sum()).backward()
        for adam in adams:
            adam.step()
    after = states(a, b)
    assert after[0] == before[0] and after[1] != before[1] and run.skipped == 1


def test_there_must_be_something_to_skip(tmp_path):
    with pytest.raises(ValueError, match="skip_non_finite: there is no tinygen.optim optimizer among the objects"):
        Run(tmp_path, 1, {"model": net()}, progress=False, skip_non_finite=1)
    with pytest.raises(ValueError, match="skip_non_finite must be a whole number ≥ 0, got -1"):
        Run(tmp_path, 1, {"model": net()}, progress=False, skip_non_finite=-1)


def test_a_run_under_detect_anomaly_names_the_operation_and_ends_tidily(tmp_path):
    with pytest.raises(anomaly.AnomalyError, match="linear: its result holds.*(?s:.)*input held nan before"):
        train(tmp_path, 10, bad=(5,), detect_anomaly=True)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4]


def test_detect_anomaly_ends_with_the_loop(tmp_path):
    train(tmp_path, 2, detect_anomaly=True)
    assert anomaly.current() is None and not anomaly.watching
