"""Two trainings at once, in threads, asyncio tasks and after a fork: does each give what it gives alone, bit for bit?

    python -m benchmarks.reliability.threads              100 steps of each
    python -m benchmarks.reliability.threads --steps 20

Each training makes its model, its batches and all its noise with the default generator, seeded by tg.manual_seed, in a
default dtype of its own, and looks at its loss under no_grad: whatever leaked from one into the other would show.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import numpy as np

import tinygen as tg
from benchmarks.reliability.facts import print_facts
from tinygen import data, models, nn, optim
from tinygen.kernels.threads import get_num_threads, set_num_threads

SHAPE = (1, 8, 8)
Training = Iterator[str]  # one step at each next(); the last item is the digest of what was learned


def autoencoder() -> nn.Module:
    """A denoising one."""
    return models.ConvAutoencoder(SHAPE, widths=(16, 32), latent=16, noise=("gaussian", 0.3))


def vae() -> nn.Module:
    """With convolutions."""
    return models.ConvVAE(SHAPE, (16, 32), latent=8)


def gan() -> nn.Module:
    """With BatchNorm and R1."""
    generator = models.ConvGenerator(SHAPE, latent=16, widths=(16, 32))
    return models.GAN(generator, models.ConvDiscriminator(SHAPE, widths=(16, 32)), r1=1.0)


def ddpm() -> nn.Module:
    """A small U-Net."""
    unet = models.UNet(channels=1, widths=(16, 32), num_classes=10)
    return models.DDPM(unet, SHAPE, models.NoiseSchedule.cosine(100), drop_class=0.2)


def training(make: Callable[[], nn.Module], seed: int, steps: int, dtype: str) -> Training:
    """Train on the bundled digits with nothing but defaults."""
    tg.set_default_dtype(dtype)
    tg.manual_seed(seed)
    model = make().to(dtype)
    digits = data.digits("train")
    batches = data.DataLoader((digits.images.astype(dtype), digits.labels), 32, shuffle=True).forever()
    sides = (model.discriminator, model.generator) if isinstance(model, models.GAN) else (model,)
    adams = [optim.Adam(side.parameters(), lr=1e-3) for side in sides]
    seen = hashlib.sha256()
    for _ in range(steps):
        x, y = next(batches)
        if isinstance(model, models.GAN):
            loss = model.training_step(x, None, *adams)["loss_g"]
        else:
            labels = (y,) if isinstance(model, models.DDPM) else ()
            loss = model.training_step(x, *labels)["loss"]
            adams[0].zero_grad()
            loss.backward()
            adams[0].step()
        seen.update(loss.detach().numpy().tobytes())
        with tg.no_grad():
            yield ""
            seen.update(tg.rand(3).numpy().tobytes())
        assert tg.is_grad_enabled()
    for tensor in model.state_dict().values():
        seen.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    yield seen.hexdigest()


Job = tuple[Callable[[], nn.Module], int, int, str]


def finish(job: Job) -> str:
    """A training from beginning to end."""
    *_, result = training(*job)
    return result


def by_itself(job: Job) -> str:
    """The same in a fresh thread, while nothing else goes on."""
    return in_threads([job])[0]


def in_threads(jobs: list[Job]) -> list[str]:
    """All at once, each in a thread."""
    found: dict[int, str | BaseException] = {}

    def call(k: int) -> None:
        try:
            found[k] = finish(jobs[k])
        except BaseException as error:
            found[k] = error

    threads = [threading.Thread(target=call, args=(k,)) for k in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [_result(found[k]) for k in range(len(jobs))]


def _result(found: str | BaseException) -> str:
    if isinstance(found, BaseException):
        raise found
    return found


def in_tasks(jobs: list[Job]) -> list[str]:
    """All at once, each in an asyncio task, taking turns step by step."""

    async def one(job: Job) -> str:
        came = []
        for item in training(*job):
            came.append(item)
            await asyncio.sleep(0)
        return came[-1]

    async def every() -> list[str]:
        return await asyncio.gather(*map(one, jobs))

    return asyncio.run(every())


def after_a_fork(job: Job) -> list[str]:
    """Fork in the middle of a training, and let both processes finish it."""

    def halves() -> str:
        steps = training(*job)
        for _ in range(job[2] // 2):
            next(steps)
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of a fork beside threads
            child = os.fork()
        result = ""
        try:
            *_, result = steps
        finally:
            if child == 0:
                os.write(writing, result.encode())
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as file:
            found.append(file.read())
        os.waitpid(child, 0)
        return result

    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(halves()))
    thread.start()
    thread.join()
    return found


def main(argv: list[str] | None = None) -> int:
    """Try it all, print what came out; 1 where a training was disturbed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.threads", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args(argv)
    print_facts("threads", args)
    n, before = args.steps, get_num_threads()
    set_num_threads(2)  # the pool of helpers is shared by everybody, too
    pairs: list[list[Job]] = [
        [(autoencoder, 0, n, "float32"), (vae, 1, n, "float64")],
        [(gan, 0, n, "float32"), (ddpm, 1, n, "float32")],
        [(ddpm, 0, n, "float32"), (ddpm, 1, n, "float64")],
        [(vae, 0, n, "float32"), (vae, 0, n, "float32")],
    ]
    wrong = 0
    alone: dict[Job, str] = {}
    for pair in pairs:
        for job in pair:
            alone[job] = alone.get(job) or by_itself(job)
        expected = [alone[job] for job in pair]
        for name, how in (("threads", in_threads), ("asyncio tasks", in_tasks)):
            same = how(pair) == expected
            wrong += not same
            names = " and ".join(f"{job[0].__name__} in {job[3]}" for job in pair)
            print(f"  {names}, in two {name}: {'the same bits' if same else 'OTHER BITS'} as alone", flush=True)
    if hasattr(os, "fork"):
        for job in pairs[1]:
            same = after_a_fork(job) == [alone[job]] * 2
            wrong += not same
            both = f"{'the same bits' if same else 'OTHER BITS'} in both processes"
            print(f"  {job[0].__name__}, forked after {n // 2} steps: {both}", flush=True)
    set_num_threads(before)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
