"""Run: interrupted anywhere and resumed, it ends in the same bits; what cannot be resumed is refused and left alone."""

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
from tinygen import nn, optim
from tinygen.serialization import CheckpointError, load
from tinygen.training import CheckpointWarning, LogError, Run, read_log
from tinygen_tests.draws import stream
from tinygen_tests.judge import host
from tinygen_tests.training.runs import Crash, Momentum, Walk, crash, outcome, train, without_times

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What 40 uninterrupted steps end in."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, 40)
    return outcome(folder)


@pytest.fixture
def heeded():
    """(signal number) → its usual effect until the test ends, also where nohup has it ignored."""
    before = {}

    def heed(number):
        before[number] = signal.getsignal(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    yield heed
    for number, handler in before.items():
        signal.signal(number, handler)


# --------------------------------------------------------------------------------- interrupt and resume


def test_longer_is_the_same_as_resumed_at_the_end(tmp_path, whole):
    train(tmp_path, 13)
    train(tmp_path, 40, resume=True)
    assert outcome(tmp_path) == whole


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
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, capfd, heeded, number, code):
    heeded(number)
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
    import os, sys, time
    import numpy as np
    from tinygen_tests.training.runs import train
    folder, resume = sys.argv[1], sys.argv[2] == "resume"
    real, said = np.sin, []
    def slow_sin(x):
        said or said.append(print("in a step", flush=True))
        time.sleep(0.012)
        return real(x)
    np.sin = slow_sin
    train(folder, 40, resume=resume, log_every=2)
    print("done", flush=True)
    os._exit(0)
""")


def train_elsewhere(folder, kind=None, after=0.0):
    """Train in another process, send it a signal after a while: its exit code and words."""
    resume = (folder / "checkpoint.npz").exists()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), "resume" if resume else "new"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
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
        nn.Conv2d(1, width, 3, padding=1, rng=rng),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 6, 3, rng=rng),
        nn.Flatten(),
        nn.Dropout(0.3, rng=rng),
        nn.Linear(24, 10, rng=rng),
    )
    adam = optim.AdamW(model.parameters(), lr=1e-2)
    slower = optim.lr_scheduler.CosineAnnealingLR(adam, T_max=30)
    ema = optim.EMA(model, decay=0.9)
    loader = tg.data.DataLoader(tg.data.digits("test"), batch_size=32, shuffle=True, rng=rng, device=str(rng.device))
    run = Run(
        folder,
        steps,
        {"model": model, "adam": adam, "slower": slower, "ema": ema, "loader": loader, "rng": rng},
        checkpoint_every=4,
        resume=resume,
        progress=False,
    )
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
    for word in (
        "model: 0.weight has shape (4, 1, 3, 3) in the file, (5, 1, 3, 3) here",
        "model: 1.running_mean",
        "model: 4.weight has shape (6, 4, 3, 3)",
        "ema",
    ):
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
        Run(
            tmp_path,
            20,
            {"model": model, "optimizer": Momentum(), "rng": tg.Generator(0)},
            resume=True,
            meta={"lr": 0.1, "data": "digits"},
        )
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
