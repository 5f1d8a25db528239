"""What is measured: training steps, sampling, single operations, small tensors, growth, memory and import."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import tinygen as tg
from benchmarks.nets import FAMILIES, unet
from benchmarks.peers import libraries, set_threads, torch_or_none
from benchmarks.timing import Row, measure


def images(lib: Any, n: int, size: int = 28) -> Any:
    """n images of noise (n, 1, size, size) in [0, 1): what they show makes no difference to the time."""
    x = np.random.default_rng(0).random((n, 1, size, size), dtype=np.float32)
    return tg.tensor(x) if lib is tg else lib.from_numpy(x)


def steps(batch: int = 128, turns: int = 7) -> Iterator[Row]:
    """One training step of each family: forward, backward, Adam."""
    for name, make in FAMILIES.items():
        yield measure(name, {k: make(lib, images(lib, batch)) for k, lib in libraries().items()}, turns)


def growth(turns: int = 5) -> Iterator[Row]:
    """The same steps with other batches, image sizes, widths and threads."""
    for name, make in FAMILIES.items():
        for what, batch, size, width in (
            ("batch 16", 16, 28, None), ("batch 512", 512, 28, None), ("16×16", 128, 16, None),
            ("width 16", 128, 28, 16), ("width 64", 128, 28, 64),
        ):
            if name == "dense autoencoder" and width is not None:
                width *= 8
            options = {} if width is None else {"width": width}
            works = {k: make(lib, images(lib, batch, size), **options) for k, lib in libraries().items()}
            yield measure(f"{name}, {what}", works, turns)
        set_threads(1)
        yield measure(f"{name}, 1 thread", {k: make(lib, images(lib, 128)) for k, lib in libraries().items()}, turns)
        set_threads(2)


def _both(f: Callable[[Any, Any], Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    return {name: f(lib, lib.nn.functional) for name, lib in libraries().items()}


def ops(turns: int = 7) -> Iterator[Row]:
    """Single operations, forward and backward, on images in the memory order in which a network has them."""
    for n, c, s in ((128, 32, 28), (128, 64, 14), (128, 128, 7)):
        x, flops = (n, c, s, s), 3 * 2 * n * c * c * 9 * s * s
        bytes_ = 3 * 4 * n * c * s * s
        weight = (c, c, 3, 3)
        yield _op(f"conv 3×3 {x}", turns, lambda lib, F, x, w: F.conv2d(x, w, padding=1), x, weight, flops=flops)
        yield _op(
            f"conv 4×4 stride 2 {x}", turns, lambda lib, F, x, w: F.conv2d(x, w, stride=2, padding=1), x, (c, c, 4, 4),
            flops=flops * 16 / 36,
        )
        yield _op(
            f"transposed 4×4 stride 2 {x}", turns, lambda lib, F, x, w: F.conv_transpose2d(x, w, stride=2, padding=1),
            x, (c, c // 2, 4, 4), flops=flops * 16 / 18,
        )
        yield _op(f"max pool 2×2 {x}", turns, lambda lib, F, x: F.max_pool2d(x, 2), x, bytes=bytes_)
        yield _op(f"upsample ×2 {x}", turns, lambda lib, F, x: F.interpolate(x, scale_factor=2), x, bytes=bytes_)
        yield _op(f"group norm {x}", turns, lambda lib, F, x, w: F.group_norm(x, 8, w, w), x, (c,), bytes=bytes_)
        yield _op(
            f"batch norm {x}", turns, lambda lib, F, x, w: F.batch_norm(x, None, None, w, w, True), x, (c,),
            bytes=bytes_,
        )
        yield _op(f"SiLU {x}", turns, lambda lib, F, x: F.silu(x), x, bytes=bytes_)
        yield _op(f"ReLU {x}", turns, lambda lib, F, x: F.relu(x), x, bytes=bytes_)
    scores, heads = (128, 4, 49, 49), (128, 4, 49, 16)
    yield _op(f"softmax {scores}", turns, lambda lib, F, x: F.softmax(x, -1), scores, plain=True)
    yield _op(
        f"attention {heads}", turns, lambda lib, F, q, k, v: F.scaled_dot_product_attention(q, k, v), heads, heads,
        heads, plain=True,
    )
    yield _op(
        "linear (128, 784) → 400", turns, lambda lib, F, x, w: F.linear(x, w), (128, 784), (400, 784),
        flops=3 * 2 * 128 * 784 * 400,
    )
    yield measure("Adam, 1 million parameters in 20 arrays", _both(_adam), turns)


def _op(
    name: str, turns: int, f: Callable, *shapes: tuple[int, ...], plain: bool = False, flops: float = 0.0,
    bytes: float = 0.0,
) -> Row:
    """Forward and backward of f(lib, F, *tensors) with a random cotangent."""
    draw = np.random.default_rng(0)
    arrays = [draw.standard_normal(shape, dtype=np.float32) for shape in shapes]
    works: dict[str, Callable[[], Any]] = {}
    for library, lib in libraries().items():
        F = lib.nn.functional
        if lib is tg:
            order = (lambda a: a) if plain else _channels_last
            tensors = [tg.Tensor(order(a), requires_grad=True) for a in arrays]
            g = tg.randn(*f(lib, F, *tensors).shape)
            g = g if plain else tg.Tensor(_channels_last(g.numpy()))
            works[library] = lambda tensors=tensors, F=F, g=g: tg.grad(f(tg, F, *tensors), tensors, g)
        else:
            tensors = [lib.from_numpy(a).requires_grad_() for a in arrays]
            g = lib.randn(f(lib, F, *tensors).shape)
            works[library] = lambda tensors=tensors, F=F, g=g, lib=lib: lib.autograd.grad(
                f(lib, F, *tensors), tensors, g
            )
    return measure(name, works, turns, flops=flops, bytes=bytes)


def _channels_last(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if a.ndim == 4 else a


def _adam(lib: Any, F: Any) -> Callable[[], Any]:
    parameters = [lib.nn.Parameter(lib.randn(50_000)) for _ in range(20)]
    for p in parameters:
        p.grad = lib.randn(50_000)
    return lib.optim.Adam(parameters, lr=1e-3).step


def small(turns: int = 15) -> Iterator[Row]:
    """Ten numbers: the time is all overhead."""

    def tensors(lib: Any) -> tuple[Any, Any]:
        return lib.rand(10, requires_grad=True), lib.rand(10, requires_grad=True)

    def add(lib: Any, F: Any) -> Callable[[], Any]:
        a, b = tensors(lib)
        return lambda: a + b

    def sweep(lib: Any, F: Any) -> Callable[[], Any]:
        a, b = tensors(lib)

        def work() -> None:
            a.grad = b.grad = None
            (a + b).sum().backward()

        return work

    def layer(lib: Any, F: Any) -> Callable[[], Any]:
        net, x = lib.nn.Linear(10, 10), lib.rand(1, 10)
        return lambda: F.relu(net(x)).sum().backward()

    yield measure("a + b", _both(add), turns)
    yield measure("(a + b).sum().backward()", _both(sweep), turns)
    yield measure("relu(linear(x)).sum().backward()", _both(layer), turns)


def sampling(turns: int = 3) -> Iterator[Row]:
    """A forward pass of 1,000 images through each decoder, and 50 calls of the U-Net on 16 images."""

    def vae(lib: Any, F: Any) -> Callable[[], Any]:
        nn = lib.nn
        net = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid())
        return _without_gradients(lib, lambda: net(lib.randn(1000, 20)))

    def gan(lib: Any, F: Any) -> Callable[[], Any]:
        nn = lib.nn
        net = nn.Sequential(
            nn.Linear(64, 64 * 49), nn.Unflatten(1, (64, 7, 7)), nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1),
            nn.Tanh(),
        ).eval()
        return _without_gradients(lib, lambda: net(lib.randn(1000, 64)))

    def chain(lib: Any, F: Any) -> Callable[[], Any]:
        net = unet(lib, 32)

        def ddim() -> None:
            x = lib.randn(16, 1, 28, 28)
            for t in range(50, 0, -1):
                x = x - 0.01 * net(x, lib.full((16,), 20.0 * t))

        return _without_gradients(lib, ddim)

    yield measure("VAE, 1,000 images", _both(vae), turns)
    yield measure("GAN, 1,000 images", _both(gan), turns)
    yield measure("U-Net, 16 images in 50 steps", _both(chain), turns)


def _without_gradients(lib: Any, f: Callable[[], Any]) -> Callable[[], Any]:
    def work() -> None:
        with lib.no_grad():
            f()

    return work


_MEMORY = """
import sys
import benchmarks.peers as peers
from benchmarks.nets import FAMILIES
from benchmarks.works import images
lib = peers.libraries()[sys.argv[1]]
peers.set_threads(2)
x = images(lib, 128)
step = FAMILIES[sys.argv[2]](lib, x)

def kilobytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name + ":"))

before = kilobytes("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forget the peak so far
for _ in range(3):
    step()
print(kilobytes("VmHWM") - before)
"""


def memory() -> Iterator[Row]:
    """By how many bytes three training steps raise the peak of a fresh process (in the place of seconds). Linux."""
    if not sys.platform.startswith("linux"):
        return
    for name in FAMILIES:
        found = {}
        for library in libraries():
            done = subprocess.run(
                [sys.executable, "-c", _MEMORY, library, name], capture_output=True, text=True, check=True
            )
            found[library] = 1024.0 * int(done.stdout)
        yield Row(name, found)


def imports(turns: int = 5) -> Iterator[Row]:
    """A fresh process that imports the library, less one that does nothing."""
    names = ["tinygen"] + ([] if torch_or_none() is None else ["torch"])
    times: dict[str, list[float]] = {name: [] for name in ["nothing", *names]}
    for _ in range(turns):
        for name, found in times.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", "" if name == "nothing" else f"import {name}"], check=True)
            found.append(time.perf_counter() - began)
    nothing = float(np.median(times["nothing"]))
    yield Row("import", {name: float(np.median(times[name])) - nothing for name in names})


def rates() -> dict[str, float]:
    """The machine's own: FLOP/s of a large float32 matrix product on one thread, bytes/s of a copy, two threads each.

    (Read and written bytes both count.)
    """
    a = tg.randn(2048, 2048)
    x = np.ones(1 << 24, np.float32)
    y = np.empty_like(x)
    product = measure("product", {"tinygen": lambda: a @ a}, 5)
    copy = measure("copy", {"tinygen": lambda: np.copyto(y, x)}, 5)
    return {"flops": 2 * 2048**3 / product.seconds["tinygen"], "bytes": 2 * x.nbytes / copy.seconds["tinygen"]}


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "steps": steps, "sampling": sampling, "ops": ops, "small": small, "growth": growth, "memory": memory,
    "import": imports,
}
