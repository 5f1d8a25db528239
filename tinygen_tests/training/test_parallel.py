"""Several processes that train one model follow one process with the whole batch; errors and signals end all of them.

The ranks are threads here (tinygen_tests/ranks.py); the last tests start a real mpirun where there is one.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tinygen as tg
from tinygen import models, nn, optim
from tinygen.data import DataLoader
from tinygen.ranks import together
from tinygen.serialization import load
from tinygen.training import Run, parallel, read_log
from tinygen.training.parallel import ParallelError, ParallelRun, make_run
from tinygen_tests.ranks import on_ranks

pytestmark = pytest.mark.cpu_only("the ranks compare NumPy arrays")
ROOT = Path(__file__).parents[2]
SHAPE = (1, 8, 8)


# ---------------------------------------------------------------------------------------- whole trainings


def autoencoder(rng):
    model = models.ConvAutoencoder(SHAPE, widths=(4,), latent=3, noise=("salt_and_pepper", 0.2), rng=rng)
    adam = optim.Adam(model.parameters())

    def train(x, y, noise):
        loss = model.training_step(x, rng=noise, weight=(y > 3).to(x.dtype))["loss"]
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        adam.step()
        return {"loss": loss}

    return {"model": model, "adam": adam}, train


def simple(model, optimizer, labels=False):
    def train(x, y, noise):
        terms = model.training_step(x, *([y] if labels else []), rng=noise)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        if hasattr(model, "update_average"):
            model.update_average()
        return terms

    return {"model": model, "optimizer": optimizer}, train


def vae(rng):
    model = models.ConvVAE(SHAPE, (4,), latent=2, rng=rng)
    return simple(model, optim.Adam(model.parameters()))


def vqvae(rng):
    model = models.ConvVQVAE(SHAPE, (4,), codes=6, dim=4, rng=rng)
    return simple(model, optim.Adam(model.parameters()))


def ddpm(rng):
    unet = models.UNet(channels=1, widths=(8,), num_classes=10, rng=rng)
    model = models.DDPM(unet, SHAPE, models.NoiseSchedule.cosine(50), drop_class=0.3)
    return simple(model, optim.Adam(model.parameters()), labels=True)


def gan(rng, loss="non-saturating"):
    wasserstein = loss == "wasserstein"
    model = models.GAN(
        models.ConvGenerator(SHAPE, latent=4, widths=(4, 4), classes=10, rng=rng),
        models.ConvDiscriminator(SHAPE, widths=(4, 4), classes=10, rng=rng),
        loss=loss, critic_steps=2 if wasserstein else 1, gradient_penalty=10.0 if wasserstein else 0.0,
        r1=0.0 if wasserstein else 1.0,
    )  # fmt: skip
    d, g = (optim.SGD(side.parameters(), lr=0.01) for side in (model.discriminator, model.generator))
    return {"model": model, "d": d, "g": g}, lambda x, y, noise: model.training_step(x, y, d, g, rng=noise)


def wgan(rng):
    return gan(rng, "wasserstein")


def classifier(rng):
    """BatchNorm1d, and dropout that draws from the default generator."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8, rng=rng), nn.BatchNorm1d(8, momentum=None), nn.Tanh(), nn.Dropout(0.3),
        nn.Linear(8, 10, rng=rng),
    )  # fmt: skip
    rms = optim.RMSprop(model.parameters(), lr=1e-3)

    def train(x, y, noise):
        loss = nn.functional.cross_entropy(model(x), y)
        rms.zero_grad()
        loss.backward()
        rms.step()
        return {"loss": loss}

    return {"model": model, "rms": rms}, train


def training(system, folder, steps=5, resume=False, place="cpu"):
    """A function of ranks that trains the system in float64 on 31 images, so that each third batch cannot be shared."""

    folder = str(folder)  # a Path is not for several threads: str() of it is remembered in it

    def run_on(ranks):
        tg.manual_seed(5)
        rng, noise = tg.Generator(1), tg.Generator(2, place)
        draws = np.random.default_rng(0)
        n, size = (36, 12) if system in (gan, wgan) else (31, 12)
        images, labels = draws.random((n, *SHAPE)), draws.integers(0, 10, n)
        objects, train = system(rng if place == "cpu" else None)
        loader = DataLoader((images, labels), size, shuffle=True, rng=rng, device=place)
        objects |= {"loader": loader, "rng": rng, "noise": noise}
        run = make_run(ranks, folder, steps, objects, progress=False, log_every=2, checkpoint_every=3, resume=resume)
        batches = loader.forever()
        for _ in run:
            x, y = next(batches)
            run.log(**train(x, y, noise))
        return objects

    return run_on


def numbers(state, where=""):
    """Every array and number in a state, by name."""
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in numbers(value, f"{where}.{key}").items()}
    if isinstance(state, (list, tuple)):
        return {k: v for i, value in enumerate(state) for k, v in numbers(value, f"{where}[{i}]").items()}
    return {where: state.numpy() if isinstance(state, tg.Tensor) else state}


def close(a, b, rtol):
    for name, x in numbers(a).items():
        y = numbers(b)[name]
        if isinstance(x, np.ndarray) and x.dtype.kind == "f":
            assert np.abs(x - y).max(initial=0) <= rtol * max(1e-3, np.abs(x).max(initial=0)), name
        elif isinstance(x, np.ndarray):
            assert np.array_equal(x, y), name
        else:
            assert x == y, name


@pytest.fixture
def double():
    tg.set_default_dtype(tg.float64)


SYSTEMS = (autoencoder, vae, vqvae, ddpm, gan, wgan, classifier)


@pytest.mark.parametrize(
    "system, size",
    [*((system, 2) for system in SYSTEMS), (autoencoder, 3), (gan, 3)],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_several_ranks_follow_one_with_the_whole_batch(system, size, tmp_path, double):
    (one,) = on_ranks(1, training(system, tmp_path / "one"))
    several = on_ranks(size, training(system, tmp_path / "several"))
    # float32 numbers inside float64 models (noise, images of masks) are the same numbers on all sides.
    first, *others = several
    assert all(isinstance(end, SystemExit) and end.code == 0 for end in others)
    alone_, together_ = (load(tmp_path / name / "checkpoint.npz") for name in ("one", "several"))
    assert together_["step"] == alone_["step"] == 5
    close(alone_["objects"], together_["objects"], 1e-9)
    log, shared = (read_log(tmp_path / name / "log.jsonl") for name in ("one", "several"))
    for a, b in zip(log, shared, strict=True):
        assert {**b, "time": 0} == pytest.approx({**a, "time": 0}, rel=1e-9)
    assert together.get() is None


def test_ranks_with_a_gpu_follow_one_with_a_gpu(tmp_path, double):
    with tg.testing.strict_cupy():
        tg.set_default_device("cuda")
        for size, name in ((1, "one"), (2, "two")):
            on_ranks(size, training(gan, tmp_path / name, 3, place="cuda"))
        one, two = (load(tmp_path / name / "checkpoint.npz")["objects"] for name in ("one", "two"))
        close(one, two, 1e-9)
        tg.set_default_device("cpu")


def test_a_checkpoint_goes_from_two_ranks_to_one_and_back(tmp_path, double):
    on_ranks(1, training(gan, tmp_path / "whole", 6))
    on_ranks(2, training(gan, tmp_path / "parts", 2))
    on_ranks(1, training(gan, tmp_path / "parts", 4, resume=True))
    on_ranks(2, training(gan, tmp_path / "parts", 6, resume=True))
    whole_, parts = (load(tmp_path / name / "checkpoint.npz")["objects"] for name in ("whole", "parts"))
    close(whole_, parts, 1e-9)
    assert [line["step"] for line in read_log(tmp_path / "parts" / "log.jsonl")] == [1, 2, 3, 4, 5, 6]


# ------------------------------------------------------------------------------------- what goes wrong


def run_with(ranks, folder, steps, body, **options):
    model = nn.Linear(2, 1, rng=tg.Generator(0))
    sgd = optim.SGD(model.parameters(), lr=0.1)
    run = ParallelRun(ranks, folder, steps, {"model": model, "sgd": sgd}, progress=False, **options)
    for step in run:
        body(run, model, step)


def test_rank_0_alone_writes_and_all_begin_with_what_it_has(tmp_path):
    folder = str(tmp_path)

    def f(ranks):
        model = nn.Linear(2, 1, rng=tg.Generator(ranks.rank))
        rng = tg.Generator(ranks.rank)
        tg.manual_seed(ranks.rank)
        run = ParallelRun(ranks, folder, 1, {"model": model, "rng": rng}, progress=False)
        run.close()
        return model.weight.detach().numpy(), (tg.rand(1, rng=rng).item(), tg.rand(1).item(), str(run.folder))

    (w, drawn), (v, drawn_too) = on_ranks(2, f)
    assert np.array_equal(w, v) and drawn[:2] == drawn_too[:2]
    assert drawn[2] == str(tmp_path) and drawn_too[2] != str(tmp_path)


def test_ranks_that_drift_apart_are_found_at_the_next_checkpoint(tmp_path):
    folder = str(tmp_path)

    def body(run, model, step):
        if step == 2:
            model.weight.data[...] += run.ranks.rank

    with pytest.raises(ParallelError, match="after step 3 the processes no longer have the same parameters"):
        on_ranks(2, lambda ranks: run_with(ranks, folder, 9, body, checkpoint_every=3))
    assert not (tmp_path / "checkpoint.npz").exists()


def test_ranks_that_log_different_things_are_told(tmp_path):
    folder = str(tmp_path)

    def body(run, model, step):
        run.log(**{"loss" if run.ranks.rank else "loss_d": 1.0})

    with pytest.raises(ParallelError, match="the processes log different values"):
        on_ranks(2, lambda ranks: run_with(ranks, folder, 9, body))


def test_a_signal_to_one_stops_all_after_the_same_step_and_is_saved_once(tmp_path, capfd):
    folder = str(tmp_path)

    def body(run, model, step):
        if step == 4 and run.ranks.rank == 1:
            run._note(signal.SIGTERM, None)

    first, second = on_ranks(2, lambda ranks: run_with(ranks, folder, 9, body))
    assert first.code == 143 and second.code == 0
    assert load(tmp_path / "checkpoint.npz")["step"] == 4
    assert capfd.readouterr().err.count("interrupted after step 4 of 9") == 1


def test_statistics_that_cannot_be_shared_are_refused(tmp_path):
    folder = str(tmp_path)

    def f(ranks):
        ParallelRun(ranks, folder, 1, {"m": nn.InstanceNorm2d(2, track_running_stats=True)}, progress=False)

    with pytest.raises(ParallelError, match="InstanceNorm2d"):
        on_ranks(2, f)


def test_one_process_is_a_plain_run(tmp_path, monkeypatch):
    for names in parallel._PLACES:
        for name in names:
            monkeypatch.delenv(name, raising=False)
    assert parallel.join() is None and parallel.launched() == (0, 1)
    run = make_run(None, tmp_path, 1, {}, progress=False)
    run.close()
    assert type(run) is Run and run.share(7) == 7


def test_without_mpi4py_mpirun_is_told_what_is_missing(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ParallelError, match=r"mpirun started 2 processes.*mpi4py.*"):
        parallel.join()
    assert parallel.launched() == (1, 2)


# ------------------------------------------------------------------------------------------- a real mpirun

MPIRUN = shutil.which("mpirun")
needs_mpi = pytest.mark.skipif(
    MPIRUN is None or importlib.util.find_spec("mpi4py") is None,
    reason="mpirun or mpi4py is not installed; the same is tried above with threads",
)
PROGRAM = """
import os, signal, sys, time
import tinygen as tg
from tinygen import nn, optim
from tinygen.training import parallel
ranks = parallel.join()
model = nn.Linear(3, 1, rng=tg.Generator(0))
adam = optim.Adam(model.parameters(), lr=0.1)
loader = tg.data.DataLoader(tg.randn(64, 3, rng=tg.Generator(1)), 8, shuffle=True, rng=tg.Generator(2))
run = parallel.make_run(ranks, sys.argv[1], 12, {"model": model, "adam": adam, "loader": loader},
                        checkpoint_every=2, progress=False, resume="resume" in sys.argv)
batches = loader.forever()
for step in run:
    if step == 7 and "trouble" in os.environ and ranks.rank == int(os.environ["rank"]):
        exec(os.environ["trouble"])
    loss = (model(next(batches)) - 1).square().mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
    run.log(loss=loss)
print("the end", flush=True)
"""


def mpirun(tmp_path, folder, *words, size=2, **environment):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI"))}
    settings = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PYTHONPATH": str(ROOT),
                "OMPI_MCA_rmaps_base_oversubscribe": "1", "TINYGEN_NUM_THREADS": "1", "TMPDIR": "/tmp"}  # fmt: skip
    command = [sys.executable, str(program), str(folder), *words]
    if size > 1:
        command = [MPIRUN, "-n", str(size), *command]
    return subprocess.run(command, env={**clean, **settings, **environment}, capture_output=True, text=True,
                          timeout=120, cwd=tmp_path)  # fmt: skip


@needs_mpi
def test_mpirun_follows_one_process_though_it_ends_in_the_middle(tmp_path):
    one = mpirun(tmp_path, tmp_path / "one", size=1)
    assert one.returncode == 0, one.stderr
    whole_ = load(tmp_path / "one" / "checkpoint.npz")["objects"]

    folder = tmp_path / "hurt"
    for words, trouble, rank, step, said in [
        ((), "raise ZeroDivisionError('a bug')", 1, 6, "ZeroDivisionError: a bug"),
        (("resume",), "sys.exit(3)", 0, 6, ""),
        (("resume",), "os.kill(os.getpid(), signal.SIGTERM)", 1, 7, "interrupted after step 7 of 12"),
    ]:
        begun = time.monotonic()
        ended = mpirun(tmp_path, folder, *words, trouble=trouble, rank=str(rank))
        assert ended.returncode != 0 and time.monotonic() - begun < 60, trouble
        assert said in ended.stderr and ended.stderr.count("interrupted") == ("interrupted" in said), ended.stderr
        assert load(folder / "checkpoint.npz")["step"] == step, trouble
    two = mpirun(tmp_path, folder, "resume")
    assert two.returncode == 0 and two.stdout.count("the end") == 1, two.stderr
    close(whole_, load(folder / "checkpoint.npz")["objects"], 1e-5)
    assert [line["step"] for line in read_log(folder / "log.jsonl")] == list(range(1, 13))


def test_what_was_said_is_given_time_before_an_abort(monkeypatch):
    """mpirun throws away what it has not read; and the others, who say the same, wait longer than that."""
    done = []

    class Comm:
        def Abort(self, code):
            done.append(("abort", code))

    monkeypatch.setattr(parallel.time, "sleep", lambda seconds: done.append(("sleep", seconds)))
    parallel.MPILink(None, Comm()).abort(3)
    (first, seconds), last = done
    assert first == "sleep" and seconds > 0.1 and last == ("abort", 3)


@needs_mpi
def test_an_error_that_all_have_is_said_once(tmp_path):
    command = [
        MPIRUN,
        "-n",
        "2",
        sys.executable,
        "-m",
        "demos",
        "vae",
        "--quick",
        "--data",
        "mnist",
        "--data-dir",
        str(tmp_path / "nowhere"),
        "--out",
        str(tmp_path / "out"),
    ]
    environment = {
        **os.environ,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "TMPDIR": "/tmp",
    }
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert ended.returncode != 0 and len(re.findall("^error: ", ended.stderr, re.M)) == 1, ended.stderr
    assert "there is no such folder" in ended.stderr and not (tmp_path / "out").exists()
