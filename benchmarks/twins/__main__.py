"""``python -m benchmarks.twins vae|gan|ddpm``: train the twin for so long, draw 1,000 samples, judge them."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np

from tinygen import data
from tinygen.metrics import judge_samples

NAMES = ("vae", "gan", "ddpm")


def load(args: argparse.Namespace) -> data.Dataset:
    """The images that the demos train on."""
    if args.data == "digits":
        return data.digits("train")
    folder = args.data_dir
    only_test_files = folder is not None and not any(folder.glob("train-*"))
    return data.mnist(folder, "t10k-train" if only_test_files else "train")


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Read the command line, run, print the figures as a table and as JSON; returns them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.twins", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--seconds", type=float, help="wall time of training and drawing (default: the demo's)")
    parser.add_argument("--steps", type=int, help="train for so many steps, whatever the time, where a machine is busy")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--data-dir", type=Path, help="the folder of MNIST's IDX files")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        import torch
    except ModuleNotFoundError:
        parser.exit(2, "error: the twins are PyTorch programs; python -m pip install torch installs it\n")
    try:
        dataset = load(args)
    except (data.DataFileError, ModuleNotFoundError) as error:
        parser.exit(2, f"error: --data {args.data}: {error}\n")
    twin_file = importlib.import_module(f"benchmarks.twins.{args.name}")
    seconds = twin_file.SECONDS if args.seconds is None else args.seconds

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    images = torch.from_numpy(np.array(dataset.images))
    twin = twin_file.Twin(tuple(images.shape[1:]))

    # An untrained network draws as slowly as a trained one: so long before the end, training must stop. The step
    # before the clock starts is what PyTorch needs to warm up.
    twin.step(images[: twin_file.BATCH_SIZE])
    began = time.perf_counter()
    if args.steps is None:
        twin.draw(args.samples)
    reserve = time.perf_counter() - began
    steps, epoch = 0, []
    began = time.perf_counter()
    cpu = time.process_time()
    while steps == 0 or (
        time.perf_counter() - began < seconds - reserve if args.steps is None else steps < args.steps
    ):
        if not epoch:
            # Whole batches only: what is left over comes another time.
            epoch = list(torch.randperm(len(images)).split(twin_file.BATCH_SIZE))[: len(images) // twin_file.BATCH_SIZE]
        terms = twin.step(images[epoch.pop()])
        steps += 1
    trained = time.perf_counter() - began
    samples = twin.draw(args.samples).numpy()
    took, cpu = time.perf_counter() - began, time.process_time() - cpu

    losses = ", ".join(f"{name} {float(value):.4g}" for name, value in terms.items())
    print(
        f"{args.name} twin on {dataset.name}: {steps:,} steps of batch size {twin_file.BATCH_SIZE} in {trained:.1f} s, "
        f"{args.samples:,} samples in {took - trained:.1f} s, seed {args.seed}, {args.threads} thread(s), {cpu:.0f} s "
        f"of CPU; last {losses}"
    )
    figures = judge_samples(samples, dataset.images)
    width = max(map(len, figures))
    print("\n".join(f"  {name:<{width}}  {value:.4g}" for name, value in figures.items()))
    print(json.dumps({"twin": args.name, "data": dataset.name, "steps": steps, "seconds": took, **figures},
                     ensure_ascii=False))
    return figures


if __name__ == "__main__":
    main()
    sys.exit(0)
