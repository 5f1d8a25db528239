"""Run: an ordinary run, its folder and lock, and faults that keep the last good checkpoint."""

import errno
import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygen as tg
from tinygen import backend
from tinygen.serialization import load
from tinygen.training import FolderInUseError, NonFiniteError, Run, load_checkpoint, read_log
from tinygen.training import loop as loop_module
from tinygen_tests.training.runs import Crash, Momentum, Walk, crash, names, outcome, train, without_times

ROOT = Path(__file__).parents[2]


# ------------------------------------------------------------------------------------- the ordinary run


def test_a_run_counts_logs_and_saves(tmp_path):
    run = train(tmp_path / "new" / "folder", 20)
    assert run.step == run.steps == 20
    assert names(run.folder) == ["checkpoint.npz", "checkpoint.previous.npz", "log.jsonl"]
    lines = read_log(run.log_path)
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert all(list(line) == ["step", "time", "loss", "lr"] for line in lines)
    assert all(a["time"] <= b["time"] for a, b in zip(lines, lines[1:]))
    assert load(run.checkpoint_path)["step"] == 20


def test_checkpoints_are_made_when_asked_and_at_the_end(tmp_path, monkeypatch):
    made = []
    save = loop_module.save_checkpoint
    monkeypatch.setattr(
        loop_module, "save_checkpoint", lambda p, step, *a, **k: (made.append(step), save(p, step, *a, **k))
    )
    train(tmp_path / "a", 20, checkpoint_every=7)
    train(tmp_path / "b", 14, checkpoint_every=7)  # the last is not made twice
    train(tmp_path / "c", 3, checkpoint_every=7)
    assert made == [7, 14, 20, 7, 14, 3]


def test_every_steps_values_are_logged_in_one_line_whatever_log_every(tmp_path):
    for every in (1, 3, 100):
        train(tmp_path / str(every), 20, log_every=every)
    logs = [without_times(tmp_path / str(every) / "log.jsonl") for every in (1, 3, 100)]
    assert logs[0] == logs[1] == logs[2] and len(logs[0]) == 20


def test_steps_without_values_have_no_line_and_several_calls_make_one(tmp_path):
    run = Run(tmp_path, 5, {}, progress=False)
    for step in run:
        if step % 2:
            run.log(a=step)
            run.log(b=np.float32(0.5), name="x", a=-step)
    assert without_times(run.log_path) == [{"step": s, "a": -s, "b": 0.5, "name": "x"} for s in (1, 3, 5)]


def test_the_values_of_a_step_are_those_at_the_call(tmp_path):
    run = Run(tmp_path, 2, {}, progress=False)
    total = np.zeros(())
    for _ in run:
        total += 1
        run.log(total=total, item=tg.tensor([2.0]))
    assert [line["total"] for line in read_log(run.log_path)] == [1, 2]


def test_values_on_a_gpu_are_fetched_only_every_log_every_steps(tmp_path):
    """A stand-in for CuPy counts how often an array is brought to the host."""
    fetched = []

    class OnGpu:
        size, shape, dtype, ndim = 1, (), np.dtype("f4"), 0

        def __init__(self, value):
            self.value = value

        def copy(self):
            return OnGpu(self.value)

        def item(self):
            fetched.append(self.value)
            return self.value

        class device:
            id = 0

    backend.register_library(OnGpu, np, "cuda")
    try:
        run = Run(tmp_path, 10, {}, log_every=5, progress=False)
        seen = []
        for step in run:
            x = OnGpu(step / 2)
            run.log(loss=x)
            x.value = None  # a later write in place must not show
            seen.append(len(fetched))
    finally:
        del backend._libraries[OnGpu]
    assert seen == [0] * 5 + [5] * 5 and len(fetched) == 10
    assert [line["loss"] for line in read_log(run.log_path)] == [s / 2 for s in range(1, 11)]


def test_run_keeps_no_graph_alive(tmp_path):
    import weakref

    run = Run(tmp_path, 3, {}, log_every=100, progress=False)
    for _ in run:
        x = tg.ones(3, requires_grad=True)
        loss = (x * x).sum()
        node = weakref.ref(loss.grad_fn)
        run.log(loss=loss)
        del x, loss
        assert node() is None


def test_bad_arguments_are_named(tmp_path):
    for name in ("steps", "checkpoint_every", "log_every"):
        for bad in (0, -1, 2.5, "3", True):
            with pytest.raises(ValueError, match=f"Run: {name} must be a whole number ≥ 1"):
                Run(tmp_path / "x", **{"steps": 5, "objects": {}, name: bad})
    with pytest.raises(TypeError, match="'model' is a dict"):
        Run(tmp_path / "x", 5, {"model": {}})
    assert not (tmp_path / "x").exists()
    run = Run(tmp_path, 2, {}, progress=False)
    with pytest.raises(RuntimeError, match="inside"):
        run.log(loss=1)
    for _ in run:
        with pytest.raises(ValueError, match=r"loss has shape \(2,\)"):
            run.log(loss=np.ones(2))
        with pytest.raises(TypeError, match="loss is a list"):
            run.log(loss=[1.0])
    with pytest.raises(RuntimeError, match="once"):
        next(iter(run))


def test_a_run_where_another_was_keeps_the_other(tmp_path):
    train(tmp_path, 5)
    old = outcome(tmp_path)
    train(tmp_path, 8)
    assert names(tmp_path) == [
        "checkpoint.npz",
        "checkpoint.old.npz",
        "checkpoint.previous.npz",
        "log.jsonl",
        "log.old.jsonl",
    ]
    assert (tmp_path / "checkpoint.old.npz").read_bytes() == old[0]
    assert without_times(tmp_path / "log.old.jsonl") == old[1]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    train(tmp_path, 5)
    for resume in (True, False):
        for name in ("checkpoint.npz", "log.jsonl", "samples.png"):
            (tmp_path / f".{name}.1234abcd.tmp").write_bytes(b"half")
        (tmp_path / ".other.1234.tmp").write_bytes(b"somebody else's")
        train(tmp_path, 6, resume=resume)
        assert [n for n in names(tmp_path) if n.startswith(".")] == [".other.1234.tmp"]


# ------------------------------------------------------------------------------------------- the lock


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path):
    script = (
        "import sys, time; from tinygen.training import Run; r = Run(sys.argv[1], 5, {}, progress=False)\n"
        "print('locked', flush=True); time.sleep(60)"
    )
    train(tmp_path, 10)
    train(tmp_path / "other", 1)
    before = outcome(tmp_path)
    gc.collect()
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "busy")], cwd=ROOT, text=True, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        os.link(tmp_path / "busy" / ".lock", tmp_path / ".lock")  # the same lock for the folder with a run in it
        for resume in (False, True):
            with pytest.raises(FolderInUseError, match=f"in use by another run: process {holder.pid} on this machine"):
                train(tmp_path, 20, resume=resume)
        assert outcome(tmp_path) == before
        assert names(tmp_path) == ["busy", "checkpoint.npz", "checkpoint.previous.npz", "log.jsonl", "other"]
    finally:
        holder.kill()
        holder.communicate()
    train(tmp_path, 20, resume=True)  # the lock died with its holder


def test_a_run_made_again_takes_the_folder_from_one_that_does_not_loop(tmp_path):
    """A notebook's cell that is run twice."""
    first = Run(tmp_path, 5, {}, progress=False)
    second = Run(tmp_path, 5, {}, progress=False)
    with pytest.raises(FolderInUseError, match="went over to a Run that was made after"):
        next(iter(first))
    first.close()
    for step in second:
        if step == 2:
            with pytest.raises(FolderInUseError, match="in use by another run of this process"):
                Run(tmp_path, 5, {}, progress=False)
    assert (tmp_path / ".lock").exists()  # for the pictures that follow
    second.close()
    assert not (tmp_path / ".lock").exists()
    with pytest.raises(Crash):
        train(tmp_path, 5, at=2, act=crash)
    assert not (tmp_path / ".lock").exists()


# ---------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("log_every", [1, 5])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path, bad, log_every):
    model = Walk()
    run = Run(tmp_path, 40, {"model": model}, checkpoint_every=10, log_every=log_every, progress=False)
    with pytest.raises(NonFiniteError) as caught:
        for step in run:
            model.w.data += 1
            run.log(kl=bad, generator_loss=bad if step == 20 else 1.0)  # on the step of a checkpoint
    message = str(caught.value)
    for word in (f"generator_loss is {bad} at step 20", "holds step 10", "learning rate"):
        assert word in message
    assert load_checkpoint(run.checkpoint_path, {"model": model}).step == 10
    assert model.w.data.tolist() == [10.0] * 3
    last = read_log(run.log_path)[-1]
    assert last["step"] == 20 and repr(last["generator_loss"]) == repr(bad)


def test_before_the_first_checkpoint_the_message_says_so(tmp_path):
    run = Run(tmp_path, 40, {}, progress=False)
    with pytest.raises(NonFiniteError, match="no checkpoint yet"):
        for _ in run:
            run.log(loss=float("nan"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_never_replaces_a_good_checkpoint(tmp_path, bad):
    """The loss was measured before the update that broke the weights."""
    model = Walk()
    run = Run(tmp_path, 40, {"model": model}, checkpoint_every=10, progress=False)
    with pytest.raises(NonFiniteError, match="after step 20.*holds step 10"):
        for step in run:
            run.log(loss=1.0)
            if step == 20:
                model.w.data[1] = bad
    assert load_checkpoint(run.checkpoint_path, {"model": Walk()}).step == 10


def test_nan_in_any_state_never_replaces_a_good_checkpoint(tmp_path):
    """An optimizer's averages too; but −inf may be meant (a mask), and plain numbers are not looked at."""
    optimizer = Momentum()
    optimizer.state = {"mask": np.array([-np.inf, 0.0]), "best": float("nan"), "deep": [{"m": np.zeros(2)}]}
    run = Run(tmp_path, 40, {"optimizer": optimizer}, checkpoint_every=10, progress=False)
    with pytest.raises(NonFiniteError, match=r"optimizer.state.deep\[0\].m holds nan after step 20.*holds step 10"):
        for step in run:
            if step == 20:
                optimizer.state["deep"][0]["m"][1] = np.nan
    assert load_checkpoint(run.checkpoint_path, {"optimizer": Momentum()}).step == 10


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        train(tmp_path, 40, at=10, act=lambda: monkeypatch.setattr(np.lib.format, "write_array", full))
    monkeypatch.undo()
    assert caught.value.filename == str(tmp_path / "checkpoint.npz")
    assert names(tmp_path) == ["checkpoint.npz", "log.jsonl"]
    assert train(tmp_path, 7, resume=True).step == 7


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train(tmp_path / "file", 5)
    with pytest.raises(OSError, match="file"):
        train(tmp_path / "file" / "under", 5)


def test_the_log_is_on_disk_before_the_checkpoint(tmp_path, monkeypatch):
    """Were it the other way round, a power cut between the two would leave a gap after the resume."""
    events = []
    monkeypatch.setattr(loop_module.JsonlLog, "sync", lambda self: events.append(len(read_log(self.path))))
    save = loop_module.save_checkpoint
    monkeypatch.setattr(
        loop_module, "save_checkpoint", lambda p, step, *a, **k: (events.append(-step), save(p, step, *a, **k))
    )
    train(tmp_path, 10, checkpoint_every=5, log_every=100)
    assert events == [5, -5, 10, -10]


def test_the_lines_of_finished_steps_survive_an_error_in_a_step(tmp_path):
    with pytest.raises(Crash):
        train(tmp_path, 40, at=12, act=crash, log_every=100)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == list(range(1, 12))
