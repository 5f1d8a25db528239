"""Stand-ins for a model and an optimizer, and what a run of them leaves in its folder."""

import os

import numpy as np

import tinygen as tg
from tinygen.training import Run, read_log


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
    run = Run(
        folder,
        steps,
        {"model": model, "optimizer": optimizer, "rng": rng},
        resume=resume,
        meta=meta,
        **{"checkpoint_every": 7, "progress": False} | options,
    )
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


class Crash(Exception):
    """What goes wrong in the middle of a step."""


def crash():
    raise Crash
