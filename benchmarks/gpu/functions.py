"""How fast are single functions? Where a step's time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import tinygen as tg
from benchmarks.gpu.libraries import Work, compare, default_device, tf32, torch_or_none
from benchmarks.gpu.report import Table, ms
from tinygen.backend import module_for
from tinygen.kernels.gpu import convolution
from tinygen.ops.unfold import sliding

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
