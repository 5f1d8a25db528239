"""Run: exact resumes, tidy interrupts, no gaps in the log, and faults that keep the last good checkpoint."""

import errno
import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tinygen as tg
import tinygen.nn.functional as F
from tinygen import backend, nn, optim
from tinygen.serialization import CheckpointError, load
from tinygen.training import (
    CheckpointWarning,
    FolderInUseError,
    LogError,
    NonFiniteError,
    Run,
    load_checkpoint,
    read_log,
)
from tinygen.training import loop as loop_module
from tinygen_tests.draws import stream
from tinygen_tests.judge import host

ROOT = Path(__file__).parents[2]


class Walk:
    """A stand-in for a model: a weight that every step, in its order, leaves a mark on."""

    def __init__(self, n=3):
        self.w = tg.zeros(n, dtype=tg.float64, device="cpu")  # NumPy computes with it below

    def parameters(self):
        return [self.w]

    def state_dict(self):
        return {"w": self.w}

    def load_state_dict(self, state):
        self.w.data[...] = state["w"].data


class Momentum:
    """A stand-in for an optimizer, which makes its state at the first step."""

    def __init__(self):
        self.state = {}

    def state_dict(self):
        return {"state": self.state}

    def load_state_dict(self, state):
        self.state = state["state"]


def train(folder, steps, resume=False, at=None, act=None, meta=None, **options):
    """Train the stand-ins; at step ``at``, in the middle of the step, ``act`` happens."""
    rng, model, optimizer = tg.Generator(0), Walk(), Momentum()
    run = Run(folder, steps, {"model": model, "optimizer": optimizer, "rng": rng}, resume=resume, meta=meta,
              **{"checkpoint_every": 7, "progress": False} | options)
    for step in run:
        g = rng._draws.standard_normal(3) + np.sin(model.w.data)
        if step == at:
            act()
        m = optimizer.state.get("m", np.zeros(3))
        optimizer.state = {"m": 0.9 * m + g}
        model.w.data -= 0.1 * optimizer.state["m"]
        run.log(loss=tg.tensor(float(np.sum(model.w.data**2))), lr=0.1)
    return run


def without_times(path):
    return [{k: v for k, v in line.items() if k != "time"} for line in read_log(path)]


def names(folder):
    """What is in a folder, but for the lock of a Run that is still about."""
    return sorted(set(os.listdir(folder)) - {".lock"})


def outcome(folder):
    return (folder / "checkpoint.npz").read_bytes(), without_times(folder / "log.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What 40 uninterrupted steps end in."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, 40)
    return outcome(folder)


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
    monkeypatch.setattr(loop_module, "save_checkpoint",
                        lambda p, step, *a, **k: (made.append(step), save(p, step, *a, **k)))
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
    assert names(tmp_path) == ["checkpoint.npz", "checkpoint.old.npz", "checkpoint.previous.npz", "log.jsonl",
                               "log.old.jsonl"]
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


# --------------------------------------------------------------------------------- interrupt and resume


def test_longer_is_the_same_as_resumed_at_the_end(tmp_path, whole):
    train(tmp_path, 13)
    train(tmp_path, 40, resume=True)
    assert outcome(tmp_path) == whole


class Crash(Exception):
    pass


def crash():
    raise Crash


@pytest.mark.parametrize("seed", range(12))
def test_interrupted_at_random_steps_and_resumed_ends_in_the_same_bits(tmp_path, whole, seed):
    """By Ctrl-C, by SIGTERM (both save) and by an error in the step (goes back to the last checkpoint)."""
    random.seed(seed)
    done, resume = 0, False
    for _ in range(3):
        at = random.randint(done + 1, 39)
        kind = random.choice([signal.SIGINT, signal.SIGTERM, None])
        act = crash if kind is None else lambda kind=kind: signal.raise_signal(kind)
        with pytest.raises(Crash if kind is None else SystemExit):
            train(tmp_path, 40, resume=resume, at=at, act=act, log_every=random.randint(1, 9))
        done = at if kind is not None else max(done, (at - 1) // 7 * 7)
        resume = done > 0
        if done == 39:
            break
    train(tmp_path, 40, resume=resume)
    assert outcome(tmp_path)[1] == whole[1]
    assert outcome(tmp_path)[0] == whole[0]


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, capfd, number, code):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as caught:
        train(tmp_path, 40, at=10, act=lambda: signal.raise_signal(number), how_to_resume="type --resume")
    assert caught.value.code == code
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    words = capfd.readouterr().err
    assert "after step 10 of 40" in words and str(tmp_path / "checkpoint.npz") in words
    assert words.rstrip().endswith("to go on: type --resume")
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == list(range(1, 11))
    assert train(tmp_path, 10, resume=True).step == 10  # the file holds step 10: nothing is left to do


def test_a_signal_in_the_last_step_still_stops_the_program(tmp_path):
    with pytest.raises(SystemExit):
        train(tmp_path, 10, at=10, act=lambda: signal.raise_signal(signal.SIGINT))
    assert train(tmp_path, 10, resume=True).step == 10


def test_a_second_interrupt_stops_at_once_and_keeps_the_checkpoint(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one must not wait")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 40, at=10, act=twice)
    assert signal.getsignal(signal.SIGINT) is before
    assert train(tmp_path, 7, resume=True).step == 7


def test_handlers_are_put_back_after_every_kind_of_end(tmp_path):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    train(tmp_path, 3)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(Crash):
        train(tmp_path, 3, at=2, act=crash)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    run = Run(tmp_path, 3, {}, progress=False)
    for _ in run:
        break
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_ignored_signal_stays_ignored(tmp_path):
    """`nohup` and `&` in a script ignore SIGINT on purpose."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert train(tmp_path, 5, at=2, act=lambda: signal.raise_signal(signal.SIGINT)).step == 5
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_in_another_thread_leaves_signals_alone(tmp_path, whole):
    handlers = []
    errors = []

    def work(folder):
        try:
            train(folder, 40, at=5, act=lambda: handlers.append(signal.getsignal(signal.SIGINT)))
        except BaseException as error:
            errors.append(error)

    before = signal.getsignal(signal.SIGINT)
    threads = [threading.Thread(target=work, args=(tmp_path / str(i),)) for i in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert errors == [] and handlers == [before] * 3
    assert all(outcome(tmp_path / str(i)) == whole for i in range(3))


SCRIPT = textwrap.dedent("""
    import importlib.util, os, sys, time
    spec = importlib.util.spec_from_file_location("loop_tests", sys.argv[1])
    tests = importlib.util.module_from_spec(spec); spec.loader.exec_module(tests)
    folder, resume = sys.argv[2], sys.argv[3] == "resume"
    real, said = tests.np.sin, []
    def slow_sin(x):
        said or said.append(print("in a step", flush=True))
        time.sleep(0.012)
        return real(x)
    tests.np.sin = slow_sin
    tests.train(folder, 40, resume=resume, log_every=2)
    print("done", flush=True)
    os._exit(0)
""")


def train_elsewhere(folder, kind=None, after=0.0):
    """Train in another process, send it a signal after a while: its exit code and words."""
    resume = (folder / "checkpoint.npz").exists()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, __file__, str(folder), "resume" if resume else "new"], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    first = process.stdout.readline()
    time.sleep(after)
    if kind is not None:
        process.send_signal(kind)
    out, err = process.communicate(timeout=30)
    return process.returncode, first + out, err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_process_killed_by_sigkill_and_then_interrupted_resumes_to_the_same_bits(tmp_path, whole):
    rng = random.Random(3)
    codes = {signal.SIGKILL: -9, signal.SIGINT: 130}
    for kind in (signal.SIGKILL, signal.SIGINT):
        code, out, err = train_elsewhere(tmp_path, kind, rng.uniform(0, 0.1))
        if "done" in out:
            break
        assert code == codes[kind] and "Traceback" not in err, err
    code, out, err = train_elsewhere(tmp_path)
    assert code == 0 and "done" in out, err
    assert outcome(tmp_path)[1] == whole[1]
    assert outcome(tmp_path)[0] == whole[0]
    assert not list(tmp_path.glob(".*.tmp"))


def test_time_goes_on_over_a_resume(tmp_path):
    train(tmp_path, 5, at=3, act=lambda: time.sleep(0.05))
    train(tmp_path, 10, resume=True)
    times = [line["time"] for line in read_log(tmp_path / "log.jsonl")]
    assert times == sorted(times) and times[5] >= 0.05


def train_a_network(folder, steps, resume=False, at=None, act=None, width=4):
    """Everything a demo has: convolution, normalisation, dropout, AdamW, a schedule, averaged weights, a loader."""
    rng = stream(1)
    model = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, rng=rng), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 6, 3, rng=rng), nn.Flatten(), nn.Dropout(0.3, rng=rng), nn.Linear(24, 10, rng=rng))
    adam = optim.AdamW(model.parameters(), lr=1e-2)
    slower = optim.lr_scheduler.CosineAnnealingLR(adam, T_max=30)
    ema = optim.EMA(model, decay=0.9)
    loader = tg.data.DataLoader(tg.data.digits("test"), batch_size=32, shuffle=True, rng=rng, device=str(rng.device))
    run = Run(folder, steps, {"model": model, "adam": adam, "slower": slower, "ema": ema, "loader": loader, "rng": rng},
              checkpoint_every=4, resume=resume, progress=False)
    batches = loader.forever()
    for step in run:
        x, y = next(batches)
        loss = F.cross_entropy(model(x), y)
        if step == at:
            act()
        adam.zero_grad()
        loss.backward()
        adam.step()
        slower.step()
        ema.update()
        run.log(loss=loss, lr=adam.param_groups[0]["lr"])
    return model


@pytest.mark.parametrize("seed", range(2))
def test_a_real_network_interrupted_and_resumed_ends_in_the_same_bits(tmp_path, seed):
    train_a_network(tmp_path / "whole", 30)
    random.seed(seed)
    first, second = sorted(random.sample(range(5, 30), 2))  # the loader's epochs are ten steps long
    with pytest.raises(SystemExit):
        train_a_network(tmp_path / "parts", 30, at=first, act=lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Crash):
        train_a_network(tmp_path / "parts", 30, resume=True, at=second, act=crash)
    train_a_network(tmp_path / "parts", 30, resume=True)
    whole, parts = outcome(tmp_path / "whole"), outcome(tmp_path / "parts")
    assert parts[1] == whole[1]
    assert parts[0] == whole[0]
    assert whole[1][-1]["loss"] < whole[1][0]["loss"]


def test_a_checkpoint_of_another_network_changes_nothing(tmp_path):
    train_a_network(tmp_path, 4)
    with pytest.raises(CheckpointError) as caught:
        train_a_network(tmp_path, 8, resume=True, width=5)
    for word in ("model: 0.weight has shape (4, 1, 3, 3) in the file, (5, 1, 3, 3) here", "model: 1.running_mean",
                 "model: 4.weight has shape (6, 4, 3, 3)", "ema"):
        assert word in str(caught.value)
    model = train_a_network(tmp_path, 4, resume=True)
    saved = load(tmp_path / "checkpoint.npz")["objects"]["model"]
    assert all(np.array_equal(host(saved[name]), host(tensor)) for name, tensor in model.state_dict().items())


# ------------------------------------------------------------------------------------- refused resumes


def test_resume_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train(tmp_path / "none", 5, resume=True)
    assert not (tmp_path / "none").exists()


def test_resume_with_another_configuration_is_refused_and_changes_nothing(tmp_path):
    train(tmp_path, 10, meta={"lr": 0.1, "data": "digits"})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="configuration: lr is 0.1 in the file, 0.2 here"):
        train(tmp_path, 20, resume=True, meta={"lr": 0.2, "data": "digits"})
    model = Walk(4)
    with pytest.raises(CheckpointError, match=r"model: w has shape \(3,\) in the file, \(4,\) here"):
        Run(tmp_path, 20, {"model": model, "optimizer": Momentum(), "rng": tg.Generator(0)}, resume=True,
            meta={"lr": 0.1, "data": "digits"})
    assert not model.w.data.any()
    with pytest.raises(CheckpointError, match="step 10, past the 9"):
        train(tmp_path, 9, resume=True, meta={"lr": 0.1, "data": "digits"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def test_resume_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path, whole):
    for _ in range(2):  # the second time the file is gone
        train(tmp_path, 20)
        if _ == 0:
            damage(tmp_path / "checkpoint.npz")
        else:
            (tmp_path / "checkpoint.npz").unlink()
        with pytest.warns(CheckpointWarning, match="before it, checkpoint.previous.npz, at step 14"):
            train(tmp_path, 40, resume=True)
        assert outcome(tmp_path) == whole
    assert len(load(tmp_path / "checkpoint.old.npz")) > 0 and (tmp_path / "checkpoint.damaged.npz").exists()


def test_resume_from_two_damaged_checkpoints_is_refused_and_changes_nothing(tmp_path):
    train(tmp_path, 10)
    for name in ("checkpoint.npz", "checkpoint.previous.npz"):
        damage(tmp_path / name)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != ".lock"}
    with pytest.raises(CheckpointError, match="damaged"):
        train(tmp_path, 20, resume=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_log_that_lost_lines_is_said_and_a_damaged_one_refused(tmp_path):
    train(tmp_path, 10)
    log = tmp_path / "log.jsonl"
    text = log.read_bytes()
    log.write_bytes(text[:-30])
    with pytest.warns(CheckpointWarning, match="log.jsonl has 9 of the 10 lines that it had at step 10"):
        train(tmp_path, 12, resume=True)
    damaged = text.replace(b'{"step": 5', b'{"step": 3')
    log.write_bytes(damaged)
    with pytest.raises(LogError, match="line 5: step 3 after step 4; the file is damaged"):
        train(tmp_path, 14, resume=True)
    assert log.read_bytes() == damaged and not (tmp_path / ".lock").exists()


def test_a_start_that_dies_at_any_call_loses_nothing(tmp_path, monkeypatch):
    """Of the run that was in the folder before: its newest checkpoint and its log stay, together."""
    train(tmp_path, 10)
    old = outcome(tmp_path)

    class Death(BaseException):
        pass

    for death in range(12):
        calls = []

        def dying(real, calls=calls, death=death):
            def call(*args, **kwargs):
                if len(calls) == death:
                    raise Death
                calls.append(real)
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in ("link", "replace", "unlink"):
                patch.setattr(os, name, dying(getattr(os, name)))
            try:
                train(tmp_path, 3)
            except Death:
                pass
        kept = [tmp_path / name for name in ("checkpoint.npz", "checkpoint.old.npz")]
        at = [".old" if path == kept[1] else "" for path in kept if path.exists() and path.read_bytes() == old[0]]
        assert any(without_times(tmp_path / f"log{suffix}.jsonl") == old[1] for suffix in at), death
        if (tmp_path / "checkpoint.npz").exists() and load(tmp_path / "checkpoint.npz")["step"] == 3:
            break
    assert death > 5 and len(calls) < death + 1


# ------------------------------------------------------------------------------------------- the lock


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path):
    script = ("import sys, time; from tinygen.training import Run; r = Run(sys.argv[1], 5, {}, progress=False)\n"
              "print('locked', flush=True); time.sleep(60)")
    train(tmp_path, 10)
    train(tmp_path / "other", 1)
    before = outcome(tmp_path)
    gc.collect()
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "busy")], cwd=ROOT, text=True,
                              stdout=subprocess.PIPE)
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
    monkeypatch.setattr(loop_module, "save_checkpoint",
                        lambda p, step, *a, **k: (events.append(-step), save(p, step, *a, **k)))
    train(tmp_path, 10, checkpoint_every=5, log_every=100)
    assert events == [5, -5, 10, -10]


def test_the_lines_of_finished_steps_survive_an_error_in_a_step(tmp_path):
    with pytest.raises(Crash):
        train(tmp_path, 40, at=12, act=crash, log_every=100)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == list(range(1, 12))
