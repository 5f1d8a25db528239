"""DDPM: a network learns to take noise out of images; taken out of pure noise again and again, images appear.

Training, for an image x₀ and a step t of 1 … T, both at random:

    x_t = √ᾱ_t·x₀ + √(1 − ᾱ_t)·ε,   ε ~ N(0, I),        L = w_t·‖ε − ε_θ(x_t, t)‖²

That is all there is to it: a regression with noise as its answer. Its optimum is E[ε | x_t], which is the slope of
the log density of noisy images: ∇ log q(x_t) = −E[ε | x_t]/√(1 − ᾱ_t). Sampling begins with x_T ~ N(0, I) and goes
back step by step (:mod:`tinygen.models.diffusion.samplers`).

    schedule, target, loss and sampler are one argument each:
    DDPM(network, (1, 8, 8), NoiseSchedule.cosine(200), target="v", loss="min_snr").sample(16, sampler=DDIMSampler(...))

Source: Sohl-Dickstein et al. (2015); Ho, Jain & Abbeel, *Denoising Diffusion Probabilistic Models* (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

from tinygen import nn
from tinygen.backend import array_module, float64
from tinygen.creation import arange, full, tensor
from tinygen.models.diffusion.losses import loss_weights
from tinygen.models.diffusion.samplers import DDPMSampler, Sampler
from tinygen.models.diffusion.schedule import NoiseSchedule
from tinygen.models.diffusion.targets import add_noise, check_target, target_of, to_epsilon, to_x0
from tinygen.ops.comparison import lt
from tinygen.ops.elementwise import clamp, floor, where
from tinygen.ops.shape import cat
from tinygen.optim.ema import average_at_once
from tinygen.random import Generator, rand, randn, randn_like
from tinygen.ranks import alone, places
from tinygen.recording import no_grad
from tinygen.tensor import Tensor, next_number, wrap


class DDPM(nn.Module):
    """L = w_t·‖ε − ε_θ(√ᾱ_t·x₀ + √(1 − ᾱ_t)·ε, t)‖²: a network, and the diffusion that trains it and draws with it.

    Args:
        network: network(x_t, t, y) → what ``target`` says, of x_t's shape; t (N) on the scale of 0 to 1000, y (N) of
            integers or None. Its attribute ``num_classes`` = K, if it has one, says that it knows classes 0 … K − 1 and
            that K is the null class.
        shape: of one example, such as (C, H, W).
        schedule: how fast the image is lost; ``NoiseSchedule.linear(1000)`` where omitted.
        target: what the network is asked for: ``"epsilon"``, ``"x0"`` or ``"v"``.
        loss: ``"simple"``, ``"vlb"`` or ``"min_snr"``.
        gamma: γ of min-SNR.
        drop_class: the probability with which training hides the class (shows the null class), for guidance.
        decay: d of the running average of the weights, which is what samples.
        value_range: (low, high) of the data, which the diffusion sees as [−1, 1]; None for data that are not images:
            seen as they are, and not clamped.

    Attributes:
        average: the network with the averaged weights s ← dₙ s + (1 − dₙ) w, dₙ = min(d, (1 + n)/(10 + n)), of
            :meth:`update_average`. It is saved with the model; its weights are buffers, not parameters.
        updates: n, an int64 tensor.

    Raises:
        ValueError: the target, loss or γ is not one; a probability or d is out of range; low ≥ high.

    Source: Ho et al. (2020), algorithms 1 and 2; for classes Ho & Salimans (2022).
    """

    updates: Tensor

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        schedule: NoiseSchedule | None = None,
        target: str = "epsilon",
        loss: str = "simple",
        gamma: float = 5.0,
        drop_class: float = 0.1,
        decay: float = 0.999,
        value_range: tuple[float, float] | None = (0.0, 1.0),
    ) -> None:
        super().__init__()
        self.schedule = NoiseSchedule.linear() if schedule is None else schedule
        check_target(target, self.schedule)
        if not 0 <= drop_class <= 1 or not 0 <= decay < 1:
            raise ValueError(f"DDPM: expected 0 ≤ drop_class ≤ 1 and 0 ≤ decay < 1, got {drop_class} and {decay}")
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ValueError(f"DDPM: expected value_range (low, high) with low < high or None, got {value_range}")
        self.network, self.shape, self.target, self.loss_name = network, tuple(shape), target, loss
        self.num_classes: int | None = getattr(network, "num_classes", None)
        self.drop_class, self.decay, self.value_range = drop_class, decay, value_range
        self.weights = loss_weights(self.schedule, loss, target, gamma)
        self._weights_at: dict[tuple[str, str], Tensor] = {}  # on the devices where they were asked for
        self.average = _with_buffers(deepcopy(network))
        self.register_buffer("updates", tensor(0, dtype="int64"))

    # -- what the data look like inside

    def encode(self, x: Tensor) -> Tensor:
        """Images in [low, high] → [−1, 1], what is diffused.

        Raises:
            ValueError: the examples are of another shape.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(f"DDPM: expected examples of shape (N, {', '.join(map(str, self.shape))}), got {x.shape}")
        if self.value_range is None:
            return x
        low, high = self.value_range
        return x * (2 / (high - low)) - (high + low) / (high - low)

    def decode(self, x: Tensor) -> Tensor:
        """[−1, 1] → images in [low, high]; what lies outside is clamped."""
        if self.value_range is None:
            return x
        low, high = self.value_range
        return clamp(x * ((high - low) / 2) + (high + low) / 2, low, high)

    # -- training

    def training_step(self, x: Tensor, y: Tensor | None = None, rng: Generator | None = None) -> dict[str, Tensor]:
        """One draw of the loss: a time, noise, and now and then a hidden class, for each example.

        The times of a batch are spread evenly over 1 … T from a random start, so that no batch has luck with them:
        t_i = 1 + ⌊T·frac(u + i/N)⌋, u ~ U[0, 1). Each t_i alone is uniform.

        Shapes: x (N, *shape), values in value_range; y (N) of integers in 0 … K − 1.

        Returns:
            "loss", what to differentiate, and "mse", the mean square error of the target, detached.

        Raises:
            ValueError: the shape is another; y is given to a network without classes.

        Source: Ho et al. (2020), algorithm 1; Kingma et al., *Variational Diffusion Models* (2021), appendix I.1.
        """
        n = x.shape[0]
        place = x.device
        first, step, N = places(n)  # N = n, and i counts from 0, but where the batch is dealt out to several processes
        i = first + step * arange(n, dtype=float64, device=place)
        with alone():  # one u for the whole batch
            u = rand(1, rng=rng, dtype=float64, device=place) + i / max(N, 1)
        t = clamp(floor((u - floor(u)) * self.schedule.T) + 1, max=self.schedule.T).to("int64")
        if y is not None and self.drop_class:
            y = where(lt(rand(n, rng=rng, device=place), self.drop_class), self._classes(), y)
        return self.loss(x, t, randn_like(x, rng=rng), y)

    def loss(self, x: Tensor, t: Tensor, epsilon: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """mean_N w_t·mean(‖output − target‖²) for given times and noise; nothing random is left.

        Shapes: x and ε (N, *shape), t (N) of integers in 1 … T, y (N) in 0 … K, K for the null class.

        Returns: as :meth:`training_step`.
        """
        x0 = self.encode(x)
        x_t = add_noise(self.schedule, x0, t, epsilon)
        output = self._ask(self.network, x_t, t, y)
        difference = (output - target_of(self.schedule, self.target, x0, t, epsilon)).flatten(1)
        each = (difference * difference).mean(1)
        mse = each.mean()
        if self.loss_name == "simple":
            return {"loss": mse, "mse": mse.detach()}
        key = str(x.dtype), str(x.device)
        if key not in self._weights_at:
            self._weights_at[key] = tensor(self.weights, dtype=x.dtype, device=x.device)
        w = self._weights_at[key][t]
        return {"loss": (w * each).mean(), "mse": mse.detach()}

    @no_grad()
    def update_average(self) -> None:
        """s ← dₙ s + (1 − dₙ) w, dₙ = min(d, (1 + n)/(10 + n)): call it after each step of the optimizer.

        The average of the last 1/(1 − d) steps draws better than any one of them. While there have been fewer, dₙ keeps
        the first weights, which draw noise, out of it.
        """
        xp = array_module(self.updates.data)
        d = xp.minimum(self.decay, (1 + self.updates.data) / (10 + self.updates.data))
        pairs = []
        learned = dict(self.network.named_parameters(remove_duplicate=False))
        state = {**dict(self.network.named_buffers(remove_duplicate=False)), **learned}
        for name, s in self.average.named_buffers():
            w = state[name].data
            if name in learned:
                pairs.append((s.data, w))
            else:
                s.data[...] = w
            s._written = next_number()
        average_at_once(pairs, d)
        self.updates.copy_(self.updates.data + 1)

    # -- what the network says

    def _classes(self) -> int:
        """K, which is also the null class.

        Raises:
            ValueError: the network knows no classes.
        """
        if self.num_classes is None:
            raise ValueError("DDPM: labels y were given, but the network was made without classes (num_classes=None)")
        return self.num_classes

    def _ask(self, network: nn.Module, x_t: Tensor, t: Tensor | int, y: Tensor | None) -> Tensor:
        if y is not None:
            self._classes()
        return network(x_t, self.schedule.time(t, x_t), y)

    def sampling_network(self) -> nn.Module:
        """The averaged network; the learned one as long as :meth:`update_average` was never called."""
        return self.average if self.updates.item() else self.network

    @no_grad()
    def predict(
        self,
        x_t: Tensor,
        t: Tensor | int,
        y: Tensor | None = None,
        guidance: float = 0.0,
        network: nn.Module | None = None,
    ) -> Tensor:
        """The output for x_t (inside, in [−1, 1]), guided towards the class:  (1 + w)·ε(x_t, y) − w·ε(x_t, null).

        By Bayes' rule ∇ log p(y | x) = ∇ log p(x | y) − ∇ log p(x): w of it is added to the score of the class, as if
        each image counted with p(y | x)^w. w = 0 is the class as it was learned; larger w, purer and less varied.
        x̂₀ and v depend on ε linearly, so that the same formula holds for them.

        Args:
            x_t: (N, *shape). t: one step or (N). y: (N) in 0 … K; None for no class.
            guidance: w ≥ 0.
            network: by default :meth:`sampling_network`.

        Raises:
            ValueError: w < 0, or guidance without y.

        Source: Ho & Salimans, *Classifier-Free Diffusion Guidance* (2022), eq. 6.
        """
        network = self.sampling_network() if network is None else network
        if network.training:
            network.eval()
            try:
                return self.predict(x_t, t, y, guidance, network)
            finally:
                network.train()
        if guidance == 0:
            return self._ask(network, x_t, t, y)
        if y is None or guidance < 0:
            raise ValueError(f"DDPM: guidance={guidance} needs a class y and w ≥ 0, got y={y}")
        null = full((x_t.shape[0],), self._classes(), dtype="int64", device=x_t.device)
        twice = cat([t, t]) if isinstance(t, Tensor) else t
        both = self._ask(network, cat([x_t, x_t]), twice, cat([y, null]))
        return guided(both[: x_t.shape[0]], both[x_t.shape[0] :], guidance)

    def x0_hat(self, x_t: Tensor, t: Tensor | int, y: Tensor | None = None, guidance: float = 0.0) -> Tensor:
        """E[x₀ | x_t] as the network has it, inside, clamped to [−1, 1] where there is a value_range."""
        x0 = to_x0(self.schedule, self.target, self.predict(x_t, t, y, guidance), t, x_t)
        return x0 if self.value_range is None else clamp(x0, -1.0, 1.0)

    def score(self, x_t: Tensor, t: Tensor | int, y: Tensor | None = None) -> Tensor:
        """∇ log q(x_t) = −E[ε | x_t]/√(1 − ᾱ_t), the direction in which noisy data get denser.

        Tweedie's formula is the same the other way round: E[x₀ | x_t] = (x_t + (1 − ᾱ_t)·∇ log q(x_t))/√ᾱ_t.

        Shapes: (N, *shape) → the same, in inside units.

        Source: Vincent, *A Connection Between Score Matching and Denoising Autoencoders* (2011); Song et al. (2021).
        """
        x0 = to_x0(self.schedule, self.target, self.predict(x_t, t, y), t, x_t)
        return -to_epsilon(self.schedule, x0, t, x_t) / self.schedule.at("noise", t, x_t)

    # -- drawing

    def sampler(
        self, kind: type[Sampler] = DDPMSampler, steps: int | Sequence[int] | None = None, **options: Any
    ) -> Sampler:
        """A sampler that fits this model: ``model.sampler(DDIMSampler, 50, eta=0.0)``."""
        clip = None if self.value_range is None else (-1.0, 1.0)
        return kind(self.schedule, steps, self.target, **{"clip": clip, **options})

    def chain(
        self,
        n: int,
        y: Tensor | int | None = None,
        guidance: float = 0.0,
        sampler: Sampler | None = None,
        rng: Generator | None = None,
        x_T: Tensor | None = None,
        start: int | None = None,
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The denoising, step by step: (t, x_t, x̂₀) after each, inside units; the last has t = 0.

        Args: as :meth:`sample`; start: the step that x_T is noise of, where it is not T.

        Raises:
            ValueError: as :meth:`sample`.
        """
        like = next(iter(self.average.buffers()))
        sampler = self.sampler() if sampler is None else sampler
        if sampler.schedule.T != self.schedule.T or sampler.target != self.target:
            raise ValueError(f"DDPM: {sampler!r} does not fit the model's {self.schedule!r}, target={self.target!r}")
        if x_T is None:
            x_T = randn(n, *self.shape, rng=rng, dtype=like.dtype, device=like.device)
        elif x_T.shape != (n, *self.shape):
            raise ValueError(f"DDPM: expected x_T of shape {(n, *self.shape)}, got {x_T.shape}")
        labels = self.labels(n, y, like.device)
        network = self.sampling_network()
        return sampler.chain(lambda x, t: self.predict(x, t, labels, guidance, network), x_T, rng, start)

    @no_grad()
    def sample(
        self,
        n: int,
        y: Tensor | int | None = None,
        guidance: float = 0.0,
        sampler: Sampler | None = None,
        rng: Generator | None = None,
        x_T: Tensor | None = None,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """n new images.

        Args:
            n: how many.
            y: their class, an integer or (n) of integers in 0 … K − 1; None draws without a class.
            guidance: w of classifier-free guidance; see :meth:`predict`.
            sampler: all T ancestral steps (:class:`DDPMSampler`) where omitted.
            rng: draws x_T and the noise of the steps.
            x_T: the noise to begin with, (n, *shape), instead of drawing it.
            on_step: called as on_step(t, x_t) after every step.

        Returns:
            (n, *shape), in value_range.

        Raises:
            ValueError: n < 1; the class is unknown, or asked of a network without classes; the sampler is of another
                schedule or target; guidance is negative or without y.

        Source: Ho et al. (2020), algorithm 2.
        """
        if n < 1:
            raise ValueError(f"sample: expected n ≥ 1, got {n}")
        x = x_T
        for t, x, _ in self.chain(n, y, guidance, sampler, rng, x_T):
            if on_step is not None:
                on_step(t, x)
        assert x is not None
        return self.decode(x)

    def labels(self, n: int, y: Tensor | int | None, device: str) -> Tensor | None:
        """Classes as (n) of int64 on the device, checked.

        Raises:
            ValueError: the network has no classes, one is not in 0 … K, or there are not n.
        """
        if y is None:
            return None
        K = self._classes()
        y = tensor([y] * n if isinstance(y, int) else y, dtype="int64", device=device)
        if y.shape != (n,) or (n and not 0 <= y.min().item() <= y.max().item() <= K):
            raise ValueError(f"DDPM: expected {n} classes in 0 … {K - 1} ({K} for none), got {y}")
        return y


def guided(conditional: Tensor, unconditional: Tensor, w: float) -> Tensor:
    """ε̂ = (1 + w)·ε_c − w·ε_u: beyond what the class says, away from what no class says.

    Source: Ho & Salimans, *Classifier-free diffusion guidance* (2022), eq. 6.
    """
    return (1 + w) * conditional - w * unconditional


def _with_buffers(network: nn.Module) -> nn.Module:
    """The network with its parameters turned into buffers: saved, moved, but nobody's to learn."""
    turned: dict[int, Tensor] = {}
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            delattr(module, name)
            module.register_buffer(name, turned.setdefault(id(parameter), wrap(parameter.data)))
    return network
