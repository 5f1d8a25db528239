"""``python -m benchmarks --device cuda --report FILE``: everything that must be known about a GPU, in one run.

First whether what is computed there is right, kernel by kernel and step by step; then how fast it is beside PyTorch.
Each section is written to FILE as soon as it is done, and one that breaks leaves its traceback there and does not keep
the others from being done: a run that is cut off has told what it had found. The slow section (torch.compile) is last.

Times are of CUDA events around several steps, on the default stream; of several such turns, library by library in
turn, the median is told. ``exact`` is float32 throughout in both libraries; in ``tf32`` both may use TF32 for products
and convolutions.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

import tinygen as tg
from benchmarks import nets
from tinygen.backend import cupy_problem, module_for
from tinygen.files import whole_file
from tinygen.kernels import windows
from tinygen.kernels.gpu import convolution
from tinygen.kernels.gpu.launch import set_enabled
from tinygen.ops.unfold import sliding

Work = Callable[[], Any]
Table = tuple[list[str], list[list[str]]]


class Report:
    """Markdown and JSON that grow section by section."""

    def __init__(self, path: Path, command: str) -> None:
        self.path = path
        self.parts = [f"# tinygen on a GPU\n\n{datetime.now().isoformat(timespec='minutes')}, `{command}`\n"]
        self.figures: dict[str, Any] = {}
        self.broken: list[str] = []
        self.write()

    def section(self, title: str, work: Callable[[], Iterator[str | Table]]) -> None:
        """Do a section: what it yields, texts and tables, is written down; so is what goes wrong."""
        began = time.perf_counter()
        print(f"-- {title}", file=sys.stderr, flush=True)
        self.parts.append(f"\n## {title}\n")
        try:
            for piece in work():
                self.parts.append(piece + "\n" if isinstance(piece, str) else table(*piece))
                self.write()
        except BaseException as error:
            self.broken.append(title)
            self.parts.append(f"\n**This section broke:**\n\n```\n{traceback.format_exc()}```\n")
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                self.write()
                raise
        self.parts.append(f"\n({time.perf_counter() - began:.0f} s)\n")
        self.write()

    def write(self) -> None:
        """Both files, whole."""
        with whole_file(self.path) as file:
            file.write("\n".join(self.parts).encode())
        with whole_file(self.path.with_suffix(".json")) as file:
            file.write((json.dumps(self.figures, indent=1, ensure_ascii=False) + "\n").encode())


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def ms(seconds: float) -> str:
    """Milliseconds for a reader."""
    return f"{1e3 * seconds:.3g} ms"


# ------------------------------------------------------------------------------------------ libraries


def torch_or_none() -> Any:
    """PyTorch where it is installed with CUDA, else None."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    return torch if torch.cuda.is_available() else None


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """TF32 allowed in both libraries, or in neither."""
    torch = torch_or_none()
    before = tg.cuda.allow_tf32(on)
    if torch is not None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        tg.cuda.allow_tf32(before)


def event_time(library: str, work: Work, steps: int) -> float:
    """Seconds of one execution, by events around ``steps`` of them."""
    if library.startswith("torch"):
        torch = torch_or_none()
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(steps):
            work()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3 / steps
    cp = module_for("cuda")
    first, last = cp.cuda.Event(), cp.cuda.Event()
    first.record()
    for _ in range(steps):
        work()
    last.record()
    last.synchronize()
    return cp.cuda.get_elapsed_time(first, last) / 1e3 / steps


def compare(works: dict[str, Work], turns: int, least: float) -> tuple[dict[str, float], dict[str, str]]:
    """Library → the median time of one execution, all in turn; and library → why it has none."""
    steps: dict[str, int] = {}
    problems: dict[str, str] = {}
    for name, work in works.items():
        try:
            for _ in range(5):  # compile, warm up, capture
                work()
            once = max(event_time(name, work, 2), 1e-6)
            steps[name] = max(3, min(500, int(least / once)))
        except Exception as error:
            problems[name] = f"{type(error).__name__}: {str(error)[:300]}"
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, n in steps.items():
            try:
                found[name].append(event_time(name, works[name], n))
            except Exception as error:
                problems[name] = f"{type(error).__name__}: {str(error)[:300]}"
    return {name: statistics.median(times) for name, times in found.items() if times}, problems


# ----------------------------------------------------------------------------------------- the sections


def machine() -> Iterator[str | Table]:
    """The GPU, the driver, the versions."""
    about = {"GPU": tg.cuda.get_device_name(), "Python": sys.version.split()[0], "system": platform.platform()}
    cp = module_for("cuda")
    about |= {"NumPy": np.__version__, "CuPy": str(getattr(cp, "__version__", "the stand-in"))}
    about |= {"tinygen": tg.__version__, "CUDA runtime": str(cp.cuda.runtime.runtimeGetVersion())}
    about |= {"CUDA driver": str(cp.cuda.runtime.driverGetVersion())}
    torch = torch_or_none()
    about["PyTorch"] = "not here, or without CUDA" if torch is None else torch.__version__
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,power.limit,memory.total", "--format=csv"]
        about["nvidia-smi"] = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()[-200:]
    except (OSError, subprocess.SubprocessError) as error:
        about["nvidia-smi"] = str(error)
    yield ["", ""], [[name, value.replace("\n", "; ")] for name, value in about.items()]
    yield f"```\n{tg.cuda.memory_summary()}\n```"


def _relative(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)) if expected.size else 0.0


SHAPES = (  # N, C, H, O, k, s, p, groups
    (8, 1, 28, 32, 4, 2, 1, 1), (8, 32, 14, 64, 4, 2, 1, 1), (4, 32, 28, 32, 3, 1, 1, 1), (4, 64, 14, 64, 3, 1, 1, 1),
    (4, 96, 28, 32, 3, 1, 1, 1), (4, 32, 28, 1, 3, 1, 1, 1), (2, 8, 9, 12, 3, 2, 1, 4), (2, 70, 7, 130, 1, 1, 0, 1),
)  # fmt: skip


def kernels(shapes: Sequence[tuple[int, ...]] = SHAPES) -> Iterator[str | Table]:
    """Every kernel beside NumPy's result of the same formula, and against the array operations on the GPU."""
    cp = module_for("cuda")
    r = np.random.default_rng(0)
    rows: list[list[str]] = []

    def line(name: str, error: float, limit: float) -> None:
        rows.append([name, f"{error:.2g}", "right" if error <= limit else f"**WRONG** (limit {limit:g})"])

    for N, C, H, O, k, s, p, groups in shapes:
        window = sliding((H, H), (k, k), s, p, 1, "conv2d")
        for dtype, limit in (("float32", 2e-5), ("float64", 1e-12)):
            drawn = [(N, C, H, H), (O, C // groups, k, k), (O,), (C,)]
            x, w, b, c = (r.standard_normal(n).astype(dtype) for n in drawn)
            y = windows.conv2d(x, w, b, window, groups)
            g = r.standard_normal(y.shape).astype(dtype)
            there = [cp.asarray(a) for a in (x, w, b, c, g)]
            for method in ("implicit", "gemm"):
                before = convolution.set_method(method)
                try:
                    made = [
                        convolution.conv2d(there[0], there[1], there[2], window, groups),
                        convolution.conv_transpose2d(there[4], there[1], there[3], window, groups),
                        convolution.conv2d_weight_gradient(there[0], there[4], window, groups),
                    ]
                finally:
                    convolution.set_method(before)
                back = windows.conv_transpose2d(g, w, c, window, groups)
                expected = [y, back, windows.conv2d_weight_gradient(x, g, window, groups)]
                error = max(_relative(m.get(), e) for m, e in zip(made, expected, strict=True))
                line(f"convolution {N, C, H, O, k, s, p, groups} {dtype}, {method}", error, limit)
    F = tg.nn.functional
    formulas: dict[str, Callable[..., Any]] = {
        "silu": F.silu, "gelu": F.gelu, "gelu tanh": lambda x: F.gelu(x, "tanh"), "softplus": F.softplus, "elu": F.elu,
        "leaky_relu": lambda x: F.leaky_relu(x, 0.2), "logsigmoid": F.logsigmoid, "sigmoid": tg.sigmoid, "relu": F.relu,
        "softmax": lambda x: F.softmax(x, -1), "log_softmax": lambda x: F.log_softmax(x, -1),
        "mse_loss": lambda x: F.mse_loss(x, 0.5 * x.detach()),
        "bce": lambda x: F.binary_cross_entropy_with_logits(x, tg.sigmoid(2 * x).detach()),
        "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
        "group_norm": lambda x: F.group_norm(x, 4), "instance_norm": lambda x: F.instance_norm(x),
        "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]), "matmul": lambda x: x @ x.mT,
        "linear": lambda x: F.linear(x, x[0, 0].detach()),
    }  # fmt: skip
    for name, f in formulas.items():
        x = r.standard_normal((6, 8, 17, 17)).astype("float32")
        results = []
        for device in ("cpu", "cuda"):
            t = tg.tensor(x, device=device).requires_grad_()
            y = f(t)
            (g,) = tg.grad(y, t, tg.cos(3 * y.detach()))
            results.append([a.detach().to("cpu").numpy() for a in (y, g)])
        line(f"{name}, and its gradient", max(map(_relative, results[1], results[0])), 3e-5)
    for name, make in {
        "Adam": lambda ps: tg.optim.Adam(ps, amsgrad=True, weight_decay=0.1), "AdamW": tg.optim.AdamW,
        "SGD": lambda ps: tg.optim.SGD(ps, 0.1, 0.9, nesterov=True),
        "RMSprop": lambda ps: tg.optim.RMSprop(ps, centered=True),
    }.items():  # fmt: skip
        ends = []
        for device in ("cpu", "cuda"):
            draw = np.random.default_rng(1)
            drawn = [tg.tensor(draw.standard_normal(n), dtype="float32", device=device) for n in range(1, 90)]
            ps = [tg.nn.Parameter(t) for t in drawn]
            optimizer = make(ps)
            for _ in range(4):
                for q in ps:
                    q.grad = tg.tensor(draw.standard_normal(q.shape), dtype="float32", device=device)
                norm = tg.nn.utils.clip_grad_norm_(ps, 5.0)
                optimizer.step()
            ends.append([norm.to("cpu").numpy(), *[q.detach().to("cpu").numpy() for q in ps]])
        line(f"{name} with clipping, 89 arrays", max(map(_relative, ends[1], ends[0])), 3e-5)
    yield ["kernel", "largest error", ""], rows
    wrong = sum("WRONG" in row[2] for row in rows)
    yield f"**{wrong} of {len(rows)} are wrong.**" if wrong else f"All {len(rows)} are right."


def _training(library: str, family: str, x: np.ndarray, weights: dict[str, np.ndarray]) -> nets.Training:
    """A family's training on the GPU, with given weights."""
    if library == "tinygen":
        training = nets.FAMILIES[family](tg, tg.tensor(x, device="cuda"))
        training.net.load_state_dict({name: tg.tensor(w) for name, w in weights.items()})
        return training
    torch = torch_or_none()
    lib = _Torch(torch) if library == "torch, graph" else torch
    training = nets.FAMILIES[family](lib, torch.from_numpy(x).cuda())
    training.net.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    return training


class _Torch:
    """PyTorch with an Adam that can be captured in a graph."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.optim = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    def Adam(self, parameters: Any, **options: Any) -> Any:
        """Its step count on the device."""
        return self._torch.optim.Adam(parameters, capturable=True, **options)


@contextmanager
def default_device(place: str) -> Iterator[None]:
    """Both libraries make tensors there."""
    torch = torch_or_none()
    before = tg.get_default_device()
    tg.set_default_device(place)
    if torch is not None:
        torch.set_default_device(place)
    try:
        yield
    finally:
        tg.set_default_device(before)
        if torch is not None:
            torch.set_default_device("cpu")


def images(batch: int, size: int) -> np.ndarray:
    """Noise (batch, 1, size, size) in [0, 1)."""
    return np.random.default_rng(0).random((batch, 1, size, size), dtype=np.float32)


def agreement(size: int, batch: int = 16, steps: int = 5) -> Iterator[str | Table]:
    """Some steps of each family: on the CPU, on the GPU, on the GPU without kernels, captured, and in PyTorch."""
    rows = []
    for family in nets.FAMILIES:
        weights, x = nets.weights(family, size), images(batch, size)
        drawn = [[n.numpy().copy() for n in nets.FAMILIES[family](tg, tg.tensor(x)).draw()] for _ in range(steps)]
        losses: dict[str, list[float]] = {}
        for way in ("CPU", "GPU", "GPU, array operations", "captured", "torch"):
            try:
                losses[way] = _losses(way, family, x, weights, drawn)
            except Exception as error:
                rows.append([family, way, f"{type(error).__name__}: {str(error)[:200]}", ""])
        for way, found in losses.items():
            error = _relative(found, losses["CPU"]) if "CPU" in losses else float("nan")
            verdict = "" if way == "CPU" else "agrees" if error < 2e-3 else "**DIFFERS**"
            rows.append([family, way, " ".join(f"{v:.6g}" for v in found), f"{error:.1g} {verdict}"])
    yield ["family", "where", "losses", "largest difference"], rows


def _losses(way: str, family: str, x: np.ndarray, weights: dict, drawn: Sequence[Sequence[np.ndarray]]) -> list[float]:
    if way == "torch":
        torch = torch_or_none()
        if torch is None:
            raise RuntimeError("PyTorch with CUDA is not here")
        with default_device("cuda"):
            training = _training("torch", family, x, weights)
            return [float(training.step(*[torch.from_numpy(n).cuda() for n in noise])) for noise in drawn]
    place = "cpu" if way == "CPU" else "cuda"
    before = set_enabled(way != "GPU, array operations")
    try:
        with default_device(place):
            training = nets.FAMILIES[family](tg, tg.tensor(x))
            training.net.load_state_dict({name: tg.tensor(w, device="cpu") for name, w in weights.items()})
            step = tg.capture(training.step, warmup=2) if way == "captured" else training.step
            losses = [step(*[tg.tensor(n, device=place) for n in noise]) for noise in drawn]
            return [float(loss.detach().item()) for loss in losses]
    finally:
        set_enabled(before)


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
                _clean()
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
        work = _torch_work(torch, way, _training(way, family, x, weights))
        for _ in range(2):
            work()
        return work, float(torch.cuda.max_memory_allocated() - before)
    tg.cuda.reset_peak_memory_stats()
    before = tg.cuda.memory_allocated()
    training = _training("tinygen", family, x, weights)
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


def _clean() -> None:
    import gc

    gc.collect()
    tg.cuda.empty_cache()
    torch = torch_or_none()
    if torch is not None:
        torch.cuda.empty_cache()


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
            _clean()
    yield f"{n:,} images of the VAE and of the GAN, and {calls} calls of the U-Net on 16 images, float32 throughout:"
    yield ["family", "", "time", "of PyTorch eager's"], rows


def _sampler(library: str, family: str, part: str, weights: dict, size: int, n: int, calls: int) -> Work:
    lib = torch_or_none() if library == "torch" else tg
    training = _training(library.partition(",")[0], family, images(2, size), weights)
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


LAYERS = (  # C, O, H, k, s, p
    (32, 32, 28, 3, 1, 1), (96, 32, 28, 3, 1, 1), (64, 64, 14, 3, 1, 1), (32, 64, 14, 4, 2, 1), (1, 32, 28, 3, 1, 1),
)  # fmt: skip


def layers(
    turns: int, least: float, batch: int, figures: dict, shapes: Sequence[tuple[int, ...]] = LAYERS
) -> Iterator[str | Table]:
    """The three products of convolutions by each method: which of them ``auto`` should choose."""
    cp = module_for("cuda")
    torch = torch_or_none()
    r = np.random.default_rng(0)
    rows = []
    for C, O, H, k, s, p in shapes:
        window = sliding((H, H), (k, k), s, p, 1, "conv2d")
        x, w = (cp.asarray(r.standard_normal(n, dtype=np.float32)) for n in ((batch, C, H, H), (O, C, k, k)))
        g = cp.asarray(r.standard_normal((batch, O, *window.out), dtype=np.float32))
        products = {
            "forward": lambda x=x, w=w, window=window: convolution.conv2d(x, w, None, window, 1),
            "input gradient": lambda g=g, w=w, window=window: convolution.conv_transpose2d(g, w, None, window, 1),
            "filter gradient": lambda x=x, g=g, window=window: convolution.conv2d_weight_gradient(x, g, window, 1),
        }
        for name, product in products.items():
            works: dict[str, Work] = {
                "implicit": _by(product, "implicit", False), "gemm": _by(product, "gemm", False),
                "gemm tf32": _by(product, "gemm", True),
            }  # fmt: skip
            if torch is not None:
                there = [torch.from_numpy(a.get()).cuda() for a in (x, w, g)]
                for mode, on in (("torch", False), ("torch tf32", True)):
                    works[mode] = _torch_product(torch, name, *there, s, p, on)
            times, problems = compare(works, turns, least)
            key = f"({batch}, {C}, {H}, {H}) → {O}, {k}×{k}, stride {s}, {name}"
            figures.setdefault("layers", {})[key] = {"seconds": times, "problems": problems}
            rows.append([key, *[ms(times[m]) if m in times else problems.get(m, "") for m in works]])
    head = ["implicit", "gemm", "gemm tf32", *(["torch", "torch tf32"] if torch is not None else [])]
    yield ["product", *head], rows


def _by(product: Work, method: str, allowed: bool) -> Work:
    def work() -> Any:
        before, tf = convolution.set_method(method), tg.cuda.allow_tf32(allowed)
        try:
            return product()
        finally:
            convolution.set_method(before)
            tg.cuda.allow_tf32(tf)

    return work


def _torch_product(torch: Any, name: str, x: Any, w: Any, g: Any, s: int, p: int, on: bool) -> Work:
    from torch.nn import grad

    def work() -> Any:
        torch.backends.cudnn.allow_tf32 = on
        if name == "forward":
            return torch.nn.functional.conv2d(x, w, None, s, p)
        if name == "input gradient":
            return grad.conv2d_input(x.shape, w, g, s, p)
        return grad.conv2d_weight(x, w.shape, g, s, p)

    return work


def pieces(turns: int, least: float, batch: int, figures: dict) -> Iterator[str | Table]:
    """Forward and backward of single functions, beside PyTorch's: where a step's time goes."""
    torch = torch_or_none()
    rows = []
    side = 4 if batch < 16 else 28
    functions: dict[str, tuple[tuple[int, ...], Callable[..., Any]]] = {
        "SiLU": ((batch, 32, side, side), lambda F, x: F.silu(x)),
        "GroupNorm": ((batch, 32, side, side), lambda F, x: F.group_norm(x, 8)),
        "BatchNorm": ((batch, 32, side, side), lambda F, x: F.batch_norm(x, None, None, training=True)),
        "softmax": ((batch, 4, 7 * side, 7 * side), lambda F, x: F.softmax(x, -1)),
        "attention": ((batch, 4, 7 * side, 16), lambda F, x: F.scaled_dot_product_attention(x, x, x)),
        "linear": ((batch, 784), lambda F, x: F.linear(x, x[:, :].detach())),
    }
    with default_device("cuda"), tf32(False):
        for name, (shape, f) in functions.items():
            works: dict[str, Work] = {"tinygen": _piece(tg, f, shape)}
            if torch is not None:
                works["torch"] = _piece(torch, f, shape)
            times, problems = compare(works, turns, least)
            figures.setdefault("pieces", {})[name] = {"seconds": times, "problems": problems}
            ratio = times.get("tinygen", float("nan")) / times.get("torch", float("nan"))
            cells = [ms(times[m]) if m in times else problems.get(m, "not here") for m in ("tinygen", "torch")]
            rows.append([f"{name} {shape}", *cells, f"{ratio:.2f}"])
    yield ["forward and backward", "tinygen", "PyTorch", "ratio"], rows


def _piece(lib: Any, f: Callable[..., Any], shape: tuple[int, ...]) -> Work:
    F = lib.nn.functional
    x = lib.randn(*shape).requires_grad_()
    g = lib.randn(*f(F, x).shape)
    grad = tg.grad if lib is tg else lib.autograd.grad
    return lambda: grad(f(F, x), x, g)


# ------------------------------------------------------------------------------------------- the command


def asked(argv: Sequence[str] | None) -> bool:
    """Whether a command line of ``python -m benchmarks`` names a GPU."""
    words = list(sys.argv[1:] if argv is None else argv)
    return "--device=cuda" in words or any(a == "--device" and b == "cuda" for a, b in zip(words, words[1:]))


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks --device cuda", description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=("cuda",), default="cuda", help="a GPU, as CuPy finds it")
    parser.add_argument("--report", type=Path, default=Path("runs/benchmarks/gpu.md"), metavar="FILE",
                        help="what is written, in Markdown; figures go to the JSON file beside it")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small: to see that it runs; the figures say nothing")
    parser.add_argument("--repeats", type=int, default=7, help="turns of every library at every row (default 7)")
    parser.add_argument("--only", default="", help=f"of {', '.join(SECTIONS)}, with commas (default: all)")
    args = parser.parse_args(argv)
    args.only = [name.strip() for name in args.only.split(",") if name.strip()] or list(SECTIONS)
    if unknown := set(args.only) - set(SECTIONS):
        parser.error(f"--only: no section is called {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if args.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {args.repeats}")
    if problem := cupy_problem():
        parser.exit(2, f"error: {problem}\n")
    return args


SECTIONS = ("machine", "kernels", "agreement", "steps", "layers", "pieces", "sampling", "tf32", "compiled")


def main(argv: Sequence[str] | None = None) -> int:
    """Do all sections, write the report; the exit code says whether one broke."""
    args = options(argv)
    args.report.parent.mkdir(parents=True, exist_ok=True)
    command = "python -m benchmarks --device cuda" + (" --quick" if args.quick else "")
    report = Report(args.report, command)
    figures = report.figures
    turns, least = (1, 0.001) if args.quick else (args.repeats, 0.15)
    size, sizes, batch = (8, (4,), 2) if args.quick else (28, (128, 512), 128)
    ways = ["tinygen", "tinygen, captured", "torch", "torch, graph"]
    chosen: dict[str, tuple[str, Callable[[], Iterator[str | Table]]]] = {
        "machine": ("Machine", machine),
        "kernels": ("Are the kernels right?", lambda: kernels(SHAPES[-2:] if args.quick else SHAPES)),
        "agreement": ("Do training steps agree?", lambda: agreement(size, 2, 4) if args.quick else agreement(size)),
        "steps": ("Training steps", lambda: steps_section(sizes, size, turns, least, ways, True, figures)),
        "layers": ("Convolutions by method", lambda: layers(
            turns, least, batch, figures, ((2, 3, 6, 3, 1, 1),) if args.quick else LAYERS)),
        "pieces": ("Single functions", lambda: pieces(turns, least, batch, figures)),
        "sampling": ("Sampling", lambda: sampling(
            turns, least, size, 8 if args.quick else 1000, 2 if args.quick else 50, figures)),
        "tf32": ("Training steps with TF32", lambda: steps_section(sizes, size, turns, least, ways, False, figures)),
        "compiled": ("Training steps beside torch.compile", lambda: steps_section(
            sizes, size, turns, least, ["tinygen, captured", "torch", "torch, compiled"], True, figures)),
    }  # fmt: skip
    for name in args.only:
        report.section(*chosen[name])
    if report.broken:
        print(f"broken: {', '.join(report.broken)}; see {args.report}", file=sys.stderr)
    print(args.report)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
