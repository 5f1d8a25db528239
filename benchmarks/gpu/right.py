"""Is what is computed there right? Kernel by kernel beside NumPy, and training steps beside the CPU's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import tinygen as tg
from benchmarks import nets
from benchmarks.gpu.libraries import default_device, images, torch_or_none, training_on_gpu
from benchmarks.gpu.report import Table
from tinygen.backend import module_for
from tinygen.kernels import windows
from tinygen.kernels.gpu import convolution
from tinygen.kernels.gpu.launch import set_enabled
from tinygen.ops.unfold import sliding


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
            training = training_on_gpu("torch", family, x, weights)
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
