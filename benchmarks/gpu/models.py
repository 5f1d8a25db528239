"""How fast are whole models? A training step of each family, and sampling from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import tinygen as tg
from benchmarks import nets
from benchmarks.gpu.libraries import Work, clean, compare, default_device, images, tf32, torch_or_none, training_on_gpu
from benchmarks.gpu.report import Table, ms


def steps_section(
    sizes: Sequence[int], size: int, turns: int, least: float, ways: Sequence[str], exact: bool, figures: dict
) -> Iterator[str | Table]:
    """One training step of each family: forward, backward, Adam."""
    with default_device("cuda"), tf32(not exact):
        for batch in sizes:
            rows = []
            for family in nets.FAMILIES:
                weights, x = nets.weights(family, size), images(batch, size)
                works: dict[str, Work] = {}
                memory: dict[str, float] = {}
                problems: dict[str, str] = {}
                for way in ways:
                    try:
                        works[way], memory[way] = _step_work(way, family, x, weights)
                    except Exception as error:
                        problems[way] = f"{type(error).__name__}: {str(error)[:300]}"
                times, failed = compare(works, turns, least)
                problems |= failed
                figures.setdefault(f"steps {'exact' if exact else 'tf32'}", {})[f"{family}, batch {batch}"] = {
                    "seconds": times, "bytes": memory, "problems": problems,
                }  # fmt: skip
                eager = times.get("torch", float("nan"))
                for way in ways:
                    if way in times:
                        cells = [ms(times[way]), f"{times[way] / eager:.2f}", f"{memory[way] / 2**20:.0f} MiB"]
                        rows.append([family, way, *cells])
                    else:
                        rows.append([family, way, problems.get(way, ""), "", ""])
                works.clear()
                clean()
            yield f"Batch {batch}, {'float32 throughout' if exact else 'TF32 allowed in both'}:"
            yield ["family", "", "time", "of PyTorch eager's", "memory at most"], rows


def _step_work(way: str, family: str, x: np.ndarray, weights: dict) -> tuple[Work, float]:
    """The step as a function without arguments, warmed up, and how much memory it takes at most."""
    if way.startswith("torch"):
        torch = torch_or_none()
        if torch is None:
            raise RuntimeError("PyTorch with CUDA is not here")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work = _torch_work(torch, way, training_on_gpu(way, family, x, weights))
        for _ in range(2):
            work()
        return work, float(torch.cuda.max_memory_allocated() - before)
    tg.cuda.reset_peak_memory_stats()
    before = tg.cuda.memory_allocated()
    training = training_on_gpu("tinygen", family, x, weights)
    if way == "tinygen":
        for _ in range(3):
            training()
        return training, float(tg.cuda.max_memory_allocated() - before)
    step = tg.capture(training.step)
    work = lambda: step(*training.draw())
    for _ in range(5):
        work()
    return work, float(tg.cuda.max_memory_allocated() - before + step.memory)


def _torch_work(torch: Any, way: str, training: nets.Training) -> Work:
    if way == "torch, compiled":
        parts = training.net.values() if isinstance(training.net, torch.nn.ModuleDict) else [training.net]
        for part in parts:
            part.compile()
        return training
    if way != "torch, graph":
        return training
    static = training.draw()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            training.step(*static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = training.step(*static)

    def replay() -> Any:
        for held, new in zip(static, training.draw(), strict=True):
            held.copy_(new)
        graph.replay()
        return result

    return replay


def sampling(turns: int, least: float, size: int, n: int, calls: int, figures: dict) -> Iterator[str | Table]:
    """Images from the VAE's decoder and the GAN's generator, and a chain of U-Net calls."""
    rows = []
    with default_device("cuda"), tf32(False):
        for family, what in (("convolutional VAE", "decoder"), ("DCGAN", "generator"), ("DDPM U-Net", "")):
            works: dict[str, Work] = {}
            weights = nets.weights(family, size)
            for library in ("tinygen", "tinygen, captured", "torch"):
                if library == "torch" and torch_or_none() is None:
                    continue
                works[library] = _sampler(library, family, what, weights, size, n, calls)
            times, problems = compare(works, turns, least)
            figures.setdefault("sampling", {})[family] = {"seconds": times, "problems": problems}
            for way in works:
                if way in times:
                    rows.append([family, way, ms(times[way]), f"{times[way] / times.get('torch', float('nan')):.2f}"])
                else:
                    rows.append([family, way, problems.get(way, ""), ""])
            works.clear()
            clean()
    yield f"{n:,} images of the VAE and of the GAN, and {calls} calls of the U-Net on 16 images, float32 throughout:"
    yield ["family", "", "time", "of PyTorch eager's"], rows


def _sampler(library: str, family: str, part: str, weights: dict, size: int, n: int, calls: int) -> Work:
    lib = torch_or_none() if library == "torch" else tg
    training = training_on_gpu(library.partition(",")[0], family, images(2, size), weights)
    net = (training.net[part] if part else training.net).eval()
    latent = {"decoder": (n, 20), "generator": (n, 64)}.get(part, (16, 1, size, size))

    def draw(z: Any) -> Any:
        with lib.no_grad():
            if part:
                return net(z)
            for t in range(calls, 0, -1):
                z = z - 0.01 * net(z, lib.full((16,), 20.0 * t))
            return z

    drawn = tg.capture(draw, warmup=1) if library == "tinygen, captured" else draw
    return lambda: drawn(lib.randn(*latent))
