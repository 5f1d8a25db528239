"""The pictures of the chapters: one function for each, drawn with tg.viz when the site is built.

    python docs/pictures.py FOLDER          draws them all without the site

Every number in them is computed here, by tinygen, from fixed seeds; the longest takes a few seconds.
"""

from __future__ import annotations

import functools
import inspect
import sys
from pathlib import Path

import numpy as np

import tinygen as tg
import tinygen.nn.functional as F
from tinygen import nn, optim, viz
from tinygen.models.diffusion.targets import add_noise
from tinygen.models.gan import optimum
from tinygen.viz import canvas

SMALL = np.arange(1.0, 17).reshape(4, 4)
FILTER = np.array([[1, 1, 1], [2, 0, 1], [-1, -1, 0]])


@functools.cache
def _digits():
    """The bundled digits to train on: images (N, 1, 8, 8) in [0, 1], and their labels."""
    data = tg.data.digits("train")
    return tg.tensor(data.images), tg.tensor(data.labels)


def _one_of_each(x, y):
    """The first image of every digit, (10, 1, 8, 8)."""
    labels = y.numpy()
    return x[tg.tensor([int(np.flatnonzero(labels == d)[0]) for d in range(10)])]


def _train(model, loss, steps, lr=1e-2, batch=128, seed=0):
    """Adam on random batches of digits."""
    x, y = _digits()
    rng = tg.Generator(seed)
    adam = optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        some = tg.randint(0, len(x), (batch,), rng=rng)
        adam.zero_grad()
        loss(model, x[some], y[some], rng).backward()
        adam.step()
    return model


# ---------------------------------------------------------------------------------------------- networks


def weighted_sum(path: Path) -> None:
    """Ten filters that a layer of weighted sums learned, below the mean image of each digit."""
    x, y = _digits()
    layer = nn.Linear(64, 10, rng=tg.Generator(0))
    _train(layer, lambda model, x, y, _: F.cross_entropy(model(x.flatten(1)), y), 300)
    W = layer.weight.detach().numpy().reshape(10, 1, 8, 8)
    means = np.stack([x.numpy()[y.numpy() == d].mean(0) for d in range(10)])
    rows = {"mean image": means, "weights": 0.5 + W / (2 * np.abs(W).max())}
    viz.save_rows(path, rows, column_labels=[str(d) for d in range(10)])


def chain_rule(path: Path) -> None:
    """The graph of L = (ab + c)², with values and gradients."""
    a, b, c = (tg.tensor(value, requires_grad=True) for value in (2.0, -3.0, 10.0))
    e = a * b
    d = e + c
    L = d * d
    names = {"a": a, "b": b, "c": c, "e": e, "d": d, "L": L}
    viz.save_graph(path, L, names, gradients=True)


def gradient_flow(path: Path) -> None:
    """What reaches the layers of two deep networks that differ in their activation alone."""
    x, y = _digits()

    def flow(activation):
        rng, layers = tg.Generator(0), []
        for _ in range(8):
            linear = nn.Linear(64, 64, bias=False, rng=rng)
            nn.init.xavier_normal_(linear.weight, rng=rng)
            layers += [linear, activation()]
        model = nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 10, bias=False, rng=rng))
        F.cross_entropy(model(x[:256]), y[:256]).backward()
        weights = (w for _, w in model.named_parameters())
        return viz.gradient_flow((f"W{k}", w) for k, w in enumerate(weights, start=1))

    viz.save_gradient_flow(path, {"sigmoid": flow(nn.Sigmoid), "tanh": flow(nn.Tanh)})


A, B, G = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[1, 0], [-1, 2], [2, 1]]), np.array([[1, -1], [0, 2]])


def matrix_product(path: Path) -> None:
    """One number of A B: a row times a column."""
    marks = {"A": [(0, 0, 1, 3)], "B": [(0, 1, 3, 1)], "C = A B": [(0, 1, 1, 1)]}
    viz.save_matrices(path, {"A": A, "B": B, "C = A B": A @ B}, ("·", "="), marks)


def matrix_product_gradient(path: Path) -> None:
    """One number of ∂L/∂A = G Bᵀ: the way back through the same three matrices."""
    marks = {"G = ∂L/∂C": [(0, 0, 1, 2)], "Bᵀ": [(0, 1, 2, 1)], "∂L/∂A = G Bᵀ": [(0, 1, 1, 1)]}
    viz.save_matrices(path, {"G = ∂L/∂C": G, "Bᵀ": B.T, "∂L/∂A = G Bᵀ": G @ B.T}, ("·", "="), marks)


def convolution(path: Path) -> None:
    """The lectures' example, as a sliding window and as one matrix product."""
    viz.save_im2col(path, SMALL, FILTER, bias=3, marked=(0, 3))


def convolution_edges(path: Path) -> None:
    """A digit, and where it gets brighter from left to right."""
    x, y = _digits()
    image = np.rint(16 * _one_of_each(x, y).numpy()[4, 0]).astype(int)
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    edges = F.conv2d(tg.tensor(image, dtype="float32")[None, None], tg.tensor(sobel, dtype="float32")[None, None])
    marks = {"x: a four": [(1, 2, 3, 3)], "y": [(1, 2, 1, 1)]}
    viz.save_matrices(path, {"x: a four": image, "w": sobel, "y": edges.numpy()[0, 0]}, ("∗", "="), marks)


def transposed_convolution(path: Path) -> None:
    """The lectures' example: the filter slides as it is."""
    viz.save_zero_insertion(path, [[1, 2], [3, 4]], [[1, -1], [2, 1]], flip=False, marked=(0, 5))


def transposed_convolution_adjoint(path: Path) -> None:
    """The same numbers through conv_transpose2d: the filter is turned."""
    viz.save_zero_insertion(path, [[1, 2], [3, 4]], [[1, -1], [2, 1]], marked=(0, 5))


def pooling(path: Path) -> None:
    """Four windows, their maxima, and the way back of four gradients."""
    x = tg.tensor([[3.0, 1, 0, 2], [5, 2, 4, 4], [0, 0, 1, 6], [7, 1, 2, 3]], requires_grad=True)
    y = F.max_pool2d(x[None, None], 2)
    g = np.array([[1.0, 2], [3, 4]], np.float32)
    y.backward(tg.tensor(g)[None, None])
    windows, numbers = [(0, 0, 2, 2), (0, 2, 2, 2), (2, 0, 2, 2), (2, 2, 2, 2)], [
        (i, j, 1, 1) for i in range(2) for j in range(2)
    ]
    matrices = {"x": x.detach(), "y = max_pool2d(x, 2)": y.detach()[0, 0], "g = ∂L/∂y": g, "∂L/∂x": x.grad}
    marks = dict(zip(matrices, (windows, numbers, numbers, windows)))
    viz.save_matrices(path, matrices, ("→", " ", "→"), marks)


def softmax(path: Path) -> None:
    """Three probabilities as one of three scores grows."""
    x1 = tg.linspace(-6, 8, 200)
    scores = tg.stack([x1, tg.full_like(x1, 1.0), tg.full_like(x1, 2.0)], 1)
    y = F.softmax(scores, 1).numpy().T
    at = x1.numpy()
    curves = {f"y{'₁₂₃'[k]}": (at, y[k]) for k in range(3)}
    viz.save_curves(path, curves, xlabel="x₁, where x₂ = 1 and x₃ = 2", ylabel="softmax(x)")


def cross_entropy(path: Path) -> None:
    """What a probability costs, and what the squared error would charge."""
    p = tg.linspace(0.005, 1, 200)
    one_hot = {"cross entropy  −ln p": -tg.log(p), "squared error  (1 − p)²": (1 - p) ** 2}
    curves = {label: (p.numpy(), loss.numpy()) for label, loss in one_hot.items()}
    viz.save_curves(path, curves, xlabel="p, the probability given to the true class", ylabel="loss")


def normalization(path: Path) -> None:
    """Four examples (rows) of four channels (columns): cells with one number share a mean and a variance."""
    n, c = np.mgrid[0:4, 0:4]
    matrices = {
        "batch_norm": c + 1,
        "layer_norm": n + 1,
        "instance_norm": 4 * n + c + 1,
        "group_norm, 2": 2 * n + c // 2 + 1,
    }
    marks = {
        "batch_norm": [(0, 0, 4, 1)],
        "layer_norm": [(0, 0, 1, 4)],
        "instance_norm": [(0, 0, 1, 1)],
        "group_norm, 2": [(0, 0, 1, 2)],
    }
    viz.save_matrices(path, matrices, marks=marks)


def normalization_depth(path: Path) -> None:
    """How large the numbers are, layer by layer, with and without normalisation."""
    x, _ = _digits()

    def spread(gain, normalise):
        rng, h, found = tg.Generator(0), x[:256].flatten(1), []
        for _ in range(20):
            W = gain * tg.randn(64, 64, rng=rng) / 8
            h = F.linear(h, W)
            if normalise:
                h = F.batch_norm(h, None, None, training=True)
            h = F.relu(h)
            found.append(h.std().item())
        return np.arange(1, 21), np.array(found)

    curves = {
        "weights a little too large": spread(1.8, False),
        "weights a little too small": spread(1.1, False),
        "the same, with batch_norm": spread(1.8, True),
    }
    viz.save_curves(path, curves, logy=True, xlabel="layer", ylabel="standard deviation of the numbers")


def adam(path: Path) -> None:
    """Four optimisers in a long valley."""
    f = lambda x, y: 0.05 * x**2 + 2 * y**2
    walkers = {
        "SGD": lambda w: optim.SGD(w, lr=0.45),
        "SGD with momentum": lambda w: optim.SGD(w, lr=0.05, momentum=0.9),
        "RMSprop": lambda w: optim.RMSprop(w, lr=0.1, alpha=0.9),
        "Adam": lambda w: optim.Adam(w, lr=0.3),
    }
    paths = {name: viz.descend(f, (-5, 1.5), make, 60) for name, make in walkers.items()}
    viz.save_descent(path, f, paths, minimum=(0, 0))


# ------------------------------------------------------------------------------------------------ models


@functools.cache
def _autoencoder():
    model = tg.models.StackedAutoencoder((1, 8, 8), (64, 8), rng=tg.Generator(0))
    return _train(model, lambda model, x, y, rng: model.training_step(x)["loss"], 800, lr=3e-3)


def autoencoder(path: Path) -> None:
    """Ten digits, and what is left of them after eight numbers."""
    x = _one_of_each(*_digits())
    viz.save_rows(path, {"x: 64 numbers": x, "x̂, out of 8": _autoencoder()(x).detach()})


def autoencoder_path(path: Path) -> None:
    """Equal steps from one code to another, and between them what is no digit."""
    x = _one_of_each(*_digits())
    model, ends = _autoencoder(), [(0, 1), (6, 9), (4, 7)]
    frames = tg.cat([model.path(x[a], x[b], steps=11)[0] for a, b in ends])
    viz.save_grid(path, frames, ncols=11, row_labels=[f"{a} to {b}" for a, b in ends])


@functools.cache
def _vae():
    model = tg.models.DenseVAE((1, 8, 8), (128,), latent=2, rng=tg.Generator(0))
    return _train(model, lambda model, x, y, rng: model.training_step(x, rng=rng)["loss"], 1500, lr=3e-3)


def vae_latent_map(path: Path) -> None:
    """The mean codes of the digits, coloured by a label that training never saw."""
    x, y = _digits()
    viz.save_latent_map(path, _vae().encode(x).mean.detach(), y, label_name="digit")


def vae_manifold(path: Path) -> None:
    """What the decoder makes of the plane of codes."""
    model = _vae()
    viz.save_manifold(path, model.decode, n=15, x_range=(-2.2, 2.2), y_range=(-2.2, 2.2), quantiles=True, scale=5)


def _normal(x, mean, deviation):
    return np.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))


def gan(path: Path) -> None:
    """Data p, generator q, and the discriminator that is the best answer to both."""
    x = np.linspace(-4, 5, 300)
    p, q = _normal(x, 1.2, 0.8), _normal(x, -0.8, 1.1)
    D = optimum.optimal_discriminator(tg.tensor(p), tg.tensor(q)).numpy()
    curves = {"p(x), data": (x, p), "q(x), generator": (x, q), "D*(x) = p/(p + q)": (x, D)}
    viz.save_curves(path, curves, xlabel="x", ylabel="density, probability")


def gan_slopes(path: Path) -> None:
    """How much the generator learns from a fake, by the discriminator's verdict on it."""
    a = tg.linspace(-6, 6, 200)
    curves = {}
    for name, loss in (("minimax  ln(1 − D)", tg.models.gan.Minimax()),
                       ("non-saturating  −ln D", tg.models.gan.NonSaturating())):
        at = a.clone().requires_grad_()
        (g,) = tg.grad(loss.generator(at) * len(a), at)
        curves[name] = (tg.sigmoid(a).numpy(), g.abs().numpy())
    viz.save_curves(path, curves, xlabel="D(G(z)): 0 is a fake that was found out", ylabel="|∂loss/∂a|,  D = σ(a)")


def ddpm_schedule(path: Path) -> None:
    """Two schedules, and a digit that goes under in each."""
    image = _one_of_each(*_digits())[3]
    schedules = {"linear": tg.models.NoiseSchedule.linear(1000), "cosine": tg.models.NoiseSchedule.cosine(1000)}
    viz.save_schedule(path, schedules, image, tg.randn(1, 8, 8, rng=tg.Generator(0)))


def _exact(schedule, x0):
    """E[x₀ | x_t] where the data are these images and no others: their mean, weighed by q(x_t | x₀)."""
    flat = x0.flatten(1)

    def denoise(x_t, t):
        a, s = float(schedule.signal[t]), float(schedule.noise[t])
        distance = ((x_t.flatten(1)[:, None] - a * flat[None]) ** 2).sum(2)
        return (F.softmax(-distance / (2 * s * s), 1) @ flat).reshape(x_t.shape)

    return denoise


def ddpm_chain(path: Path) -> None:
    """Ancestral sampling with the best denoiser that there is for these images."""
    x, _ = _digits()
    schedule = tg.models.NoiseSchedule.cosine(200)
    sampler = tg.models.DDPMSampler(schedule, target="x0")
    denoise, rng = _exact(schedule, 2 * x - 1), tg.Generator(5)
    noise = tg.randn(3, 1, 8, 8, rng=rng)
    shown, frames = {200: 0, 175: 1, 150: 2, 125: 3, 100: 4, 75: 5, 50: 6, 25: 7, 0: 8}, {200: noise}
    guesses = {200: denoise(noise, 200)}
    for p, x_p, _ in sampler.chain(denoise, noise, rng):
        if p in shown:
            frames[p], guesses[p] = x_p, denoise(x_p, p) if p else x_p
    rows = {}
    for k in range(3):
        noisy = [frames[t][k : k + 1] / (1 + float(schedule.noise[t])) for t in shown]  # so that noise is grey
        rows[f"x_t, {k + 1}"] = tg.cat(noisy)
        rows[f"E[x₀ | x_t], {k + 1}"] = tg.cat([guesses[t][k : k + 1] for t in shown])
    viz.save_rows(path, rows, value_range=(-1, 1), column_labels=[f"t = {t}" for t in shown])


# Three heaps of points in the plane. Diffused, they are x_t ~ Σ π_k N(√ᾱ μ_k, ᾱ Σ_k + (1 − ᾱ)I).
MEANS, WIDTH = np.array([[1.3, 1.0], [-1.4, 0.7], [0.1, -1.5]]), 0.25


def _diffused(A):
    """The mixture at ᾱ = A."""
    covariance = (A * WIDTH**2 + 1 - A) * np.eye(2)
    return tg.data.GaussianMixture(np.sqrt(A) * MEANS, np.stack([covariance] * 3))


def score(path: Path) -> None:
    """The score of three heaps of points, at three noise levels."""
    schedule, panels = tg.models.NoiseSchedule.cosine(1000), {}
    grid = np.stack(np.meshgrid(*[np.linspace(-2.6, 2.6, 12)] * 2), -1).reshape(-1, 2)
    for t in (100, 400, 800):
        heaps = _diffused(schedule.alpha_bar[t])
        points = heaps.sample(600, tg.Generator(0))
        points = points[np.abs(points).max(1) < 2.8]
        panels[f"t = {t} of 1000"] = {"points": points, "at": grid, "arrows": heaps.score(grid)}
    viz.save_fields(path, panels, limit=2.9)


def score_paths(path: Path) -> None:
    """From noise (right) to data at −1 and 1 (left), without and with fresh noise in each step."""
    schedule = tg.models.NoiseSchedule.cosine(200)
    denoise = lambda x, t: tg.tanh(x * float(schedule.signal[t] / schedule.noise[t] ** 2))  # E[x₀ | x_t], exactly
    x_T = tg.tensor(np.linspace(-2.1, 2.1, 12)[:, None])
    samplers = {
        "probability-flow ODE (DDIM, η = 0)": tg.models.DDIMSampler(schedule, 200, "x0", eta=0.0),
        "reverse SDE (ancestral sampling)": tg.models.DDPMSampler(schedule, target="x0"),
    }
    figure = canvas.new_figure(9.6, 3.9)
    for axes, (title, sampler) in zip(figure.subplots(1, 2, sharey=True), samplers.items()):
        chain = sampler.chain(denoise, x_T, tg.Generator(1))
        walks = np.stack([x_T.numpy(), *(x.numpy() for _, x, _ in chain)])[..., 0]
        canvas.plain_axes(axes, "t", "x_t" if axes.get_subplotspec().is_first_col() else "", title)
        for walk in walks.T:
            colour = canvas.PALETTE[0] if walk[-1] > 0 else canvas.PALETTE[6]
            axes.plot([*sampler.steps, 0], walk, color=colour, linewidth=1.1)
    canvas.save_figure(path, figure)


def ddpm_forward(path: Path) -> None:
    """A digit, and draws from q(x_t | x₀)."""
    x = _one_of_each(*_digits())
    schedule, rng = tg.models.NoiseSchedule.cosine(1000), tg.Generator(0)
    steps = (0, 100, 200, 400, 600, 800, 1000)
    rows = {
        f"a {d}": tg.cat([add_noise(schedule, 2 * x[d : d + 1] - 1, t, tg.randn(1, 1, 8, 8, rng=rng)) for t in steps])
        for d in (2, 5)
    }
    viz.save_rows(path, rows, value_range=(-1.6, 1.6), column_labels=[f"t = {t}" for t in steps])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: python docs/pictures.py FOLDER [NAME ...]")
    for name, draw in list(inspect.getmembers(sys.modules["__main__"], inspect.isfunction)):
        mine = draw.__module__ == "__main__" and not name.startswith("_")
        if mine and (not sys.argv[2:] or name in sys.argv[2:]):
            draw(Path(sys.argv[1]) / f"{name}.png")
            print(name)
