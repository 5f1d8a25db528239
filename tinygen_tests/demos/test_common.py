"""The demos' shell, tried on throw-away demos: options, data, listing, resuming, and errors in one plain line."""

import os
import signal
import subprocess
import sys
import textwrap
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinygen as tg
from demos import __main__ as cli
from demos import common
from tinygen.data import Dataset
from tinygen.training import CheckpointError, FolderInUseError, FolderLock, NonFiniteError, read_log

pytestmark = pytest.mark.cpu_only("demos say where they compute; test_on_a_gpu.py runs them there")

ROOT = Path(__file__).parents[2]
MNIST_TEST_FILES = ROOT.parent / "shared" / "data" / "mnist"

TINY = '''
"""Tiny: the smallest demo,
in one sentence.

And what the list does not show.
"""

# %%
import signal

import numpy as np

import tinygen as tg
from demos import common

args = common.options(
    "tiny", steps=30, batch_size=16, quick_steps=5, add=lambda parser: parser.add_argument("--trouble")
)
train, test = common.load_data(args)
rng = tg.Generator(args.seed)


class Model:
    def __init__(self):
        self.w = tg.zeros(train.images[0].size)

    def parameters(self):
        return [self.w]

    def state_dict(self):
        return {"w": self.w}

    def load_state_dict(self, state):
        self.w.data[...] = state["w"].data


# %%
model = Model()
loader = tg.data.DataLoader(train, batch_size=args.batch_size, shuffle=True, rng=rng, device=args.device)
run = common.run(args, {"model": model, "loader": loader, "rng": rng})
batches = loader.forever()
for step in run:
    x, _ = next(batches)
    x = x.reshape(len(x), -1)
    loss = ((x - model.w) ** 2).mean() + 0 * tg.randn(1, rng=rng).sum()
    model.w.data -= 0.1 * (model.w.data - x.data.mean(0)) + 0.001 * tg.randn(model.w.shape[0], rng=rng).data
    run.log(loss=loss)
    if step == 11 and args.trouble in ("SIGINT", "SIGTERM"):
        signal.raise_signal(signal.Signals[args.trouble])
    if step == 11 and args.trouble == "nan":
        run.log(loss=float("nan"))
    if step == 11 and args.trouble == "bug":
        raise ZeroDivisionError("a bug")
    if step == 11 and args.trouble == "twice":
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

# %%
print("the end", model.w.shape, common.images(test, args).shape)
'''


@pytest.fixture(autouse=True)
def tidy(tmp_path, monkeypatch):
    """Runs go to a temporary folder, and the hook for uncaught errors is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture
def folder(tmp_path):
    """A folder with two demos, a helper that is none, and what makes `from demos import common` work in it."""
    demos = tmp_path / "demos"
    demos.mkdir()
    (demos / "tiny.py").write_text(TINY.lstrip())
    (demos / "another.py").write_text('"""Another one."""\n')
    for name in ("common.py", "demos.py", "__init__.py", "__main__.py"):
        (demos / name).write_bytes((ROOT / "demos" / name).read_bytes())
    return demos


def demo(folder, *words):
    cli.main(list(words), folder)


def fails(capsys, code, folder, *words):
    """The demo ends with this code and one line on stderr; the line, without its ``error: ``."""
    with pytest.raises(SystemExit) as caught:
        demo(folder, *words)
    err = capsys.readouterr().err
    assert caught.value.code == code, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return err[err.index("error: ") + 7 :].rstrip("\n")


# ---------------------------------------------------------------------------------------------- listing


def test_the_list_shows_each_name_with_its_sentence(folder, capsys):
    demo(folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("python -m demos NAME [options]")
    assert lines[2:] == ["  another  Another one.", "  tiny     Tiny: the smallest demo, in one sentence."]


def test_names_are_one_per_line(folder, capsys):
    demo(folder, "--names")
    assert capsys.readouterr().out == "another\ntiny\n"


def test_help_shows_the_list_too(folder, capsys):
    with pytest.raises(SystemExit) as caught:
        demo(folder, "--help")
    assert caught.value.code == 0
    assert "  tiny     Tiny: the smallest demo, in one sentence." in capsys.readouterr().out


def test_an_unknown_name_lists_the_names(folder, capsys):
    assert fails(capsys, 2, folder, "tony") == "there is no demo 'tony'; there are: another, tiny"
    assert "--bogus" in fails(capsys, 2, folder, "--bogus")


def test_every_demo_of_the_project_has_a_sentence():
    for name, path in cli.find(cli.FOLDER).items():
        assert cli.sentence(path).endswith("."), name


# ---------------------------------------------------------------------------------------------- options


def test_the_defaults():
    args = common.options("x", steps=300, batch_size=64, argv=[])
    assert (args.name, args.data, args.data_dir, args.device, args.steps) == ("x", "digits", None, "cpu", 300)
    assert (args.batch_size, args.seed, args.out, args.resume) == (64, 0, Path("runs/x"), False)
    assert (args.checkpoint_every, args.quick) == (500, False)


def test_every_option():
    words = ("--data mnist --data-dir d --device cpu --steps 7 --batch-size 8 --seed 9 --out o --resume "
             "--checkpoint-every 10 --quick").split()
    args = common.options("x", steps=300, batch_size=64, argv=words)
    assert (args.data, args.data_dir, args.device, args.steps) == ("mnist", Path("d"), "cpu", 7)
    assert (args.batch_size, args.seed, args.out, args.resume) == (8, 9, Path("o"), True)
    assert (args.checkpoint_every, args.quick) == (10, True)
    assert args.how_to_resume == "python -m demos x " + " ".join(w for w in words if w != "--resume") + " --resume"


def test_quick_shortens_unless_steps_are_given():
    assert common.options("x", steps=300, batch_size=1, quick_steps=6, argv=["--quick"]).steps == 6
    assert common.options("x", steps=300, batch_size=1, argv=["--quick", "--steps", "9"]).steps == 9


def test_in_a_notebook_the_kernels_words_are_not_read(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "/tmp/kernel.json"])
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    hook = sys.excepthook
    assert common.options("x", steps=3, batch_size=1).steps == 3
    assert sys.excepthook is hook


@pytest.mark.parametrize("words, message", [
    (["--steps", "0"], "argument --steps: must be a whole number, 1 or more, not '0'"),
    (["--steps", "1.5"], "argument --steps: must be a whole number, 1 or more, not '1.5'"),
    (["--batch-size", "-3"], "argument --batch-size: must be a whole number, 1 or more, not '-3'"),
    (["--seed", "-1"], "argument --seed: must be a whole number, 0 or more, not '-1'"),
    (["--checkpoint-every", "zero"], "argument --checkpoint-every: must be a whole number, 1 or more, not 'zero'"),
    (["--data", "cifar"], "argument --data: invalid choice: 'cifar'"),
    (["--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
    (["--data-dir", "d"], "argument --data-dir: goes with --data mnist"),
    (["--step", "3"], "unrecognized arguments: --step 3"),
    (["--steps"], "argument --steps: expected one argument"),
    (["--data", "mnist", "--data-dir", "nowhere"], "--data-dir nowhere: there is no such folder"),
    (["--batch-size", "99999"], "--batch-size 99999: there are only 1,500 examples to train on"),
    (["--out", "tiny-is-a-file"], "argument --out: tiny-is-a-file is a file; a folder is needed"),
    (["--out", "tiny-is-a-file/under"], "tiny-is-a-file/under: Not a directory"),
    (["--resume"], "runs/tiny/checkpoint.npz does not exist, so there is nothing to resume"),
])
def test_wrong_values_are_one_line_and_write_nothing(folder, tmp_path, capsys, words, message):
    (tmp_path / "tiny-is-a-file").write_text("")
    assert fails(capsys, 2, folder, "tiny", *words).startswith(message)
    assert sorted(os.listdir(tmp_path)) == ["demos", "tiny-is-a-file"]


def test_a_gpu_that_is_not_there_is_one_line(folder, capsys, monkeypatch):
    def missing(name):
        if name != "cpu":
            raise common.DeviceError("CuPy is not installed")
        return np

    monkeypatch.setattr(common, "module_for", missing)
    assert fails(capsys, 2, folder, "tiny", "--device", "cuda") == "argument --device: CuPy is not installed"


# ------------------------------------------------------------------------------------------------- data


def test_the_digits_are_the_default():
    args = common.options("x", steps=1, batch_size=4, argv=[])
    train, test = common.load_data(args)
    assert train.x.shape[1:] == test.x.shape[1:] == (1, 8, 8) and len(train) + len(test) == 1797
    got = common.images(test, args)
    assert isinstance(got, tg.Tensor) and got.shape == test.x.shape and got.device == "cpu"
    assert np.array_equal(got.numpy(), test.x)


def test_a_folder_of_test_files_alone_is_split(tmp_path):
    if not MNIST_TEST_FILES.is_dir():
        pytest.skip("the MNIST test files are not here")
    args = common.options("x", steps=1, batch_size=4, argv=["--data", "mnist", "--data-dir", str(MNIST_TEST_FILES)])
    train, test = common.load_data(args)
    assert (len(train), len(test)) == (8000, 2000)
    assert args.about_data == "mnist (t10k-train): 8,000 examples to train on, 2,000 held out"


@pytest.mark.parametrize("files, splits", [
    (["t10k-images-idx3-ubyte.gz"], ["t10k-train", "t10k-test"]),
    (["t10k-images-idx3-ubyte", "train-images-idx3-ubyte"], ["train", "test"]), ([], ["train", "test"]),
])
def test_which_parts_of_mnist_a_folder_gives(tmp_path, monkeypatch, files, splits):
    asked = []
    monkeypatch.setattr(common.data, "mnist", lambda folder, split: (
        asked.append(split), Dataset(np.zeros((8, 1, 28, 28), "f4"), None, split))[1])
    for name in files:
        (tmp_path / name).write_bytes(b"")
    common.load_data(common.options("x", steps=1, batch_size=4, argv=["--data", "mnist", "--data-dir", str(tmp_path)]))
    assert asked == splits


def test_damaged_and_missing_mnist_files_are_one_line(folder, tmp_path, capsys):
    (tmp_path / "mnist").mkdir()
    assert "train-images" in fails(capsys, 2, folder, "tiny", "--data", "mnist", "--data-dir", "mnist")
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (tmp_path / "mnist" / name).write_bytes(b"\0\0\x08\x03\0\0")
    assert "train-images" in fails(capsys, 2, folder, "tiny", "--data", "mnist", "--data-dir", "mnist")


def test_without_a_folder_both_parts_are_fetched(monkeypatch):
    asked = []

    def mnist(root, split, download=False):
        asked.append((root, split, download))
        return Dataset(np.zeros((8, 1, 28, 28), "f4"), None, split)

    monkeypatch.setattr(common.data, "mnist", mnist)
    common.load_data(common.options("x", steps=1, batch_size=4, argv=["--data", "mnist"]))
    assert asked == [(None, "train", True), (None, "test", True)]


# -------------------------------------------------------------------------------------------------- run


def test_a_whole_demo(folder, tmp_path, capsys):
    demo(folder, "tiny", "--quick")
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "Tiny: the smallest demo, in one sentence.",
        "  data    digits (train): 1,500 examples to train on, 297 held out",
        "  device  cpu",
        "  model   64 parameters",
        "  steps   5 of batch size 16, seed 0",
        f"  out     {Path('runs/tiny')}",
        "the end (64,) (297, 1, 8, 8)",
    ]
    assert "step 5/5" in err
    assert sorted(set(os.listdir(tmp_path / "runs" / "tiny")) - {".lock"}) == ["checkpoint.npz", "log.jsonl"]


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupted_demo_says_what_to_type_and_that_works(folder, tmp_path, capfd, name, code):
    demo(folder, "tiny", "--out", "whole", "--batch-size", "32", "--trouble", "none")
    with pytest.raises(SystemExit) as caught:
        demo(folder, "tiny", "--out", "with space", "--batch-size", "32", "--trouble", name)
    assert caught.value.code == code
    err = capfd.readouterr().err
    assert "Traceback" not in err and "interrupted after step 11 of 30" in err
    command = err.rstrip().splitlines()[-1]
    assert command == f"to go on: python -m demos tiny --out 'with space' --batch-size 32 --trouble {name} --resume"
    demo(folder, "tiny", "--out", "with space", "--batch-size", "32", "--trouble", name, "--resume")
    assert ", going on after step 11" in capfd.readouterr().out
    a, b = ((tmp_path / out / "checkpoint.npz").read_bytes() for out in ("whole", "with space"))
    assert a == b
    assert [e["step"] for e in read_log(tmp_path / "with space" / "log.jsonl")] == list(range(1, 31))


def test_checkpoints_come_as_often_as_asked(folder, capsys):
    message = fails(capsys, 1, folder, "tiny", "--trouble", "nan", "--checkpoint-every", "4")
    assert "holds step 8" in message


def test_other_settings_do_not_resume(folder, capsys):
    demo(folder, "tiny", "--quick")
    message = fails(capsys, 2, folder, "tiny", "--resume", "--batch-size", "8", "--seed", "3")
    assert "batch size is 16 in the file, 8 here" in message and "seed is 0 in the file, 3 here" in message
    assert "past the 4" in fails(capsys, 2, folder, "tiny", "--resume", "--steps", "4")


def test_nan_a_second_interrupt_and_a_full_disk_are_one_line_and_a_bug_is_not(folder, capsys, monkeypatch):
    assert "loss is nan at step 11" in fails(capsys, 1, folder, "tiny", "--trouble", "nan")
    assert fails(capsys, 130, folder, "tiny", "--trouble", "twice").startswith("interrupted at once")
    with pytest.raises(ZeroDivisionError):
        demo(folder, "tiny", "--trouble", "bug")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    message = fails(capsys, 2, folder, "tiny")
    assert "checkpoint.npz: No space left on device; make room, then --resume goes on" in message


def test_a_damaged_checkpoint_is_a_warning_line_and_the_run_goes_on(folder, tmp_path, capsys):
    demo(folder, "tiny", "--checkpoint-every", "7")
    path = tmp_path / "runs" / "tiny" / "checkpoint.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        demo(folder, "tiny", "--checkpoint-every", "7", "--resume")
    out, err = capsys.readouterr()
    assert err.startswith(f"warning: {Path('runs/tiny/checkpoint.npz')} does not end in tinygen's seal")
    assert "Going on from the checkpoint before it, checkpoint.previous.npz, at step 28; the damaged file is now" in err
    assert ", going on after step 28" in out and "UserWarning" not in err
    assert path.read_bytes() == whole


def test_a_folder_in_use_is_one_line(folder, tmp_path, capsys):
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    lock = FolderLock(tmp_path / "runs" / "tiny")
    lock.busy = True
    with pytest.raises(FolderInUseError):  # before a demo that draws first can draw anything
        common.options("tiny", steps=3, batch_size=4, argv=["--out", str(tmp_path / "runs" / "tiny")])
    message = fails(capsys, 2, folder, "tiny")
    assert "in use by another run of this process; wait for it, stop it, or choose another folder with --out" in message


@pytest.mark.parametrize("error, code, text", [
    (common.UserError("so"), 2, "so"), (CheckpointError("so"), 2, "so"), (NonFiniteError("so"), 1, "so"),
    (common.DeviceError("so"), 2, "so"), (tg.data.DataFileError("so"), 2, "so"), (MemoryError(), 2, "out of memory"),
    (FileNotFoundError(2, "No such file", "x.png"), 2, "x.png: No such file"), (OSError("so"), 2, "so"),
    (OSError(30, "Read-only file system", "runs"), 2, "runs: Read-only file system; another folder can be chosen"),
    (tg.training.LogError("so"), 2, "so"),
    (ModuleNotFoundError("no", name="matplotlib.pyplot"), 2, "matplotlib.pyplot is not installed"),
    (KeyboardInterrupt(), 130, "interrupted"),
])
def test_errors_that_have_a_line(error, code, text, capsys):
    with pytest.raises(SystemExit) as caught, common.plain_errors():
        raise error
    assert caught.value.code == code
    assert capsys.readouterr().err.startswith(f"error: {text}")


@pytest.mark.parametrize("error", [ValueError("so"), ModuleNotFoundError("no", name="tinygen.nothing"), TypeError()])
def test_bugs_keep_their_traceback(error):
    with pytest.raises(type(error)) as caught, common.plain_errors():
        raise error
    assert caught.value is error


# -------------------------------------------------------------------------- as a script, as a notebook


def python(*words, cwd):
    done = subprocess.run([sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=60,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def test_a_demo_runs_as_a_script_too(folder, tmp_path):
    code, out, err = python(folder / "tiny.py", "--quick", cwd=tmp_path)
    assert code == 0 and out.endswith("the end (64,) (297, 1, 8, 8)\n"), err
    code, out, err = python(folder / "tiny.py", "--resume", "--seed", "4", cwd=tmp_path)
    assert code == 2 and err.startswith("error: ") and "seed is 0 in the file, 4 here" in err and "Traceback" not in err
    code, out, err = python(folder / "tiny.py", "--trouble", "bug", cwd=tmp_path)
    assert code == 1 and "ZeroDivisionError: a bug" in err and "Traceback" in err
    code, out, err = python(folder / "tiny.py", "--trouble", "SIGTERM", cwd=tmp_path)
    assert code == 128 + signal.SIGTERM and "to go on: python -m demos tiny" in err and "Traceback" not in err


def test_dash_m_runs_from_the_checkout_and_exits_as_it_should(tmp_path):
    code, out, err = python("-m", "demos", cwd=ROOT)
    assert code == 0 and out.startswith("python -m demos NAME"), err
    code, out, err = python("-m", "demos", "nothing", cwd=ROOT)
    assert code == 2 and err.startswith("error: there is no demo 'nothing'") and err.count("\n") == 1


def test_a_demos_cells_run_in_a_notebook(folder, tmp_path):
    """A kernel: no __file__ in __main__, the folder of the notebook as the current one, foreign words in argv."""
    kernel = textwrap.dedent("""
        import re, sys
        text = open("tiny.py").read()
        sys.argv = ["ipykernel_launcher.py", "-f", "kernel.json"]
        for cell in re.split(r"^# %%.*$", text, flags=re.M):
            exec(compile(cell, "cell", "exec"), globals())
    """)
    code, out, err = python("-c", kernel, cwd=folder)
    assert code == 0 and "the end" in out and "steps   30" in out, err


def test_an_anomaly_and_a_picture_of_nan_are_errors_without_a_traceback(folder, capsys):
    tiny = folder / "tiny.py"
    text = tiny.read_text()
    tiny.write_text(text.replace("    run.log(loss=loss)\n", "    tg.log(-1 - 0 * loss)\n    run.log(loss=loss)\n"))
    said = fails(capsys, 1, folder, "tiny", "--quick", "--detect-anomaly")
    assert said.startswith("log: its result holds 1 nan among 1 number\n  input: float32 (), from -1 to -1")
    assert "tg.log(-1 - 0 * loss)" in said.splitlines()[-1]
    drawn = "    tg.viz.save_grid('a.png', x.reshape(-1, 1, 8, 8) * np.nan)\n"
    tiny.write_text(text.replace("    run.log(loss=loss)\n", drawn))
    assert "nan, at [0, 0, 0, 0]; NaN and infinity cannot be drawn. What made" in fails(capsys, 1, folder, "tiny")
    assert "--skip-non-finite: must be a whole number" in fails(capsys, 2, folder, "tiny", "--skip-non-finite", "-1")
