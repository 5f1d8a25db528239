"""GAN: two networks, one loss with two sides, and how they take turns.

    G: z ~ N(0, I) ↦ x̃ = G(z)                    draws images; q is their distribution
    D: x ↦ a                                     says how real an image looks
    D minimises  L_D = E_p[f(D(x))] + E_z[g(D(G(z)))] (+ penalties on D's slope),   with G held still
    G minimises  L_G = E_z[h(D(G(z)))],                                             with D held still

Neither is trained to the end: k small steps of D, one of G, and again. What is minimised never settles, for each step
of one changes the problem of the other; what is looked for is a Nash equilibrium, where q = p and D knows nothing.

Source: Goodfellow et al., *Generative Adversarial Nets* (2014), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from tinygen import nn
from tinygen.creation import full
from tinygen.models.gan.losses import AdversarialLoss, adversarial_loss
from tinygen.models.gan.networks import BATCH_NORMS
from tinygen.models.gan.penalties import clip_weights, gradient_penalty, r1_penalty
from tinygen.ops.elementwise import clamp
from tinygen.ops.shape import cat
from tinygen.random import Generator, randint, randn
from tinygen.ranks import parts_of
from tinygen.recording import no_grad
from tinygen.tensor import Tensor

Terms = dict[str, Tensor]


class GAN(nn.Module):
    """G ← argmin L_G, D ← argmin L_D, one small step each by turns: a generator and a discriminator train each other.

    ::

        gan = GAN(ConvGenerator((1, 8, 8)), ConvDiscriminator((1, 8, 8)), loss="hinge")
        adam_d = Adam(gan.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        adam_g = Adam(gan.generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        for x, y in loader:
            terms = gan.training_step(x, optimizer_d=adam_d, optimizer_g=adam_g)

    WGAN-GP is ``GAN(G, D, "wasserstein", gradient_penalty=10, critic_steps=5)``, WGAN with clipping
    ``GAN(G, D, "wasserstein", clip=0.01, critic_steps=5)``, the convergent GAN of Mescheder et al. (2018)
    ``GAN(G, D, r1=10)``.

    Args:
        generator: a module, noise (N, latent) and labels (N) or None → images in [−1, 1]; with attributes ``latent``
            and ``classes`` (None, or how many labels).
        discriminator: a module, images and labels or None → a (N).
        loss: an :class:`AdversarialLoss`, or the name of one in ``LOSSES``.
        critic_steps: k, D's steps for each of G's.
        gradient_penalty: λ of WGAN-GP's penalty; 0 for none.
        r1: γ of R1, added as γ/2·E‖∇D‖²; 0 for none.
        clip: c, to which all of D's weights are clipped after each of its steps; None for none.
        data_range: (low, high) of the data, [0, 1] for all images here; None takes the data as they are.

    Raises:
        ValueError: critic_steps < 1; a weight is negative; clip ≤ 0; low ≥ high; a BatchNorm in a discriminator
            whose gradient is penalised image by image.

    Source: Goodfellow et al. (2014); Arjovsky et al. (2017); Gulrajani et al. (2017); Mescheder et al. (2018).
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: str | AdversarialLoss = "non-saturating",
        critic_steps: int = 1,
        gradient_penalty: float = 0.0,
        r1: float = 0.0,
        clip: float | None = None,
        data_range: tuple[float, float] | None = (0.0, 1.0),
    ) -> None:
        super().__init__()
        if critic_steps < 1 or gradient_penalty < 0 or r1 < 0 or (clip is not None and not clip > 0):
            raise ValueError(
                "GAN: expected critic_steps ≥ 1, gradient_penalty ≥ 0, r1 ≥ 0 and clip > 0 or None, got "
                f"{critic_steps}, {gradient_penalty}, {r1} and {clip}"
            )
        if data_range is not None and not data_range[0] < data_range[1]:
            raise ValueError(f"GAN: expected data_range = (low, high) with low < high, got {data_range}")
        penalised = gradient_penalty > 0 or r1 > 0
        if penalised and any(isinstance(part, BATCH_NORMS) for part in discriminator.modules()):
            raise ValueError(
                "GAN: the gradient penalty is for each image by itself, and BatchNorm in the discriminator mixes the "
                "images of a batch; leave it out, or use LayerNorm or GroupNorm (Gulrajani et al. 2017, section 4)"
            )
        self.generator, self.discriminator = generator, discriminator
        self.loss = adversarial_loss(loss)
        self.critic_steps, self.gradient_penalty, self.r1, self.clip = critic_steps, gradient_penalty, r1, clip
        self.data_range = data_range

    @property
    def classes(self) -> int | None:
        """How many labels there are; None if images have none."""
        return getattr(self.generator, "classes", None)

    # -- between the data's range and the networks'

    def to_network(self, x: Tensor) -> Tensor:
        """2(x − low)/(high − low) − 1: data in [low, high] → [−1, 1], where tanh lives."""
        if self.data_range is None:
            return x
        low, high = self.data_range
        return (x - low) * (2 / (high - low)) - 1

    def to_data(self, x: Tensor) -> Tensor:
        """low + (x + 1)(high − low)/2, clamped to [low, high]: the way back."""
        if self.data_range is None:
            return x
        low, high = self.data_range
        return clamp((x + 1) * ((high - low) / 2) + low, low, high)

    # -- what the two networks do

    def generate(self, n: int, y: Tensor | None = None, rng: Generator | None = None) -> Tensor:
        """G(z, y) with z ~ N(0, I), in the networks' range [−1, 1], recorded. (n, *shape)"""
        weight = next(self.generator.parameters())
        z = randn(n, self.generator.latent, rng=rng, dtype=weight.dtype, device=weight.device)
        return self.generator(z, y)

    def labels(self, n: int, y: Any = None, rng: Generator | None = None) -> Tensor | None:
        """Labels (n) for n images: ``y`` itself, one label for all, or drawn evenly; None where there are no classes.

        Args:
            y: an integer, an integer tensor (n), or None.

        Raises:
            ValueError: there are no classes, but labels; a number of labels that is not n; a label that is no class.
        """
        if self.classes is None:
            if y is not None:
                raise ValueError("GAN: labels were given, but the generator has no classes")
            return None
        device = next(self.generator.parameters()).device
        if y is None:
            return randint(0, self.classes, (n,), rng=rng, device=device)
        if isinstance(y, Tensor):
            if y.shape != (n,):
                raise ValueError(f"GAN: expected {n} labels, a tensor of shape ({n},), got {y.shape}")
            return y
        if not 0 <= int(y) < self.classes:
            raise ValueError(f"GAN: expected a class from 0 to {self.classes - 1}, got {y}")
        return full((n,), int(y), dtype="int64", device=device)

    # -- the two sides of a step

    def critic_step(self, x: Tensor, y: Tensor | None = None, rng: Generator | None = None) -> Terms:
        """What D minimises on a batch of real images, beside as many fakes with the same labels.

        The fakes are made without recording: nothing of this reaches the generator.

        Args:
            x: images (N, *shape) in the data's range.
            y: their labels (N), where there are classes.
            rng: draws the noise, and the penalty's ε.

        Returns:
            ``loss``, to differentiate; and detached ``loss_d`` (without penalties), ``d_real`` = E D(x), ``d_fake`` =
            E D(G(z)), and ``penalty``, weighed, if there is one.

        Raises:
            ValueError: shapes or labels do not fit the networks.
        """
        x = self.to_network(x)
        with no_grad():
            fake = self.generate(x.shape[0], y, rng)
        critic = partial(self.discriminator, y=y)
        a_real, a_fake = critic(x), critic(fake)
        loss = adversarial = self.loss.discriminator(a_real, a_fake)
        penalty = None
        if self.gradient_penalty:
            penalty = self.gradient_penalty * gradient_penalty(critic, x, fake, rng)
        if self.r1:
            r1 = self.r1 / 2 * r1_penalty(critic, x)
            penalty = r1 if penalty is None else penalty + r1
        terms = {
            "loss_d": adversarial.detach(),
            "d_real": self.loss.score(a_real.detach()).mean(),
            "d_fake": self.loss.score(a_fake.detach()).mean(),
        }
        if penalty is not None:
            loss = loss + penalty
            terms["penalty"] = penalty.detach()
        return {"loss": loss, **terms}

    def generator_step(self, n: int, y: Any = None, rng: Generator | None = None) -> Terms:
        """What G minimises on n fakes. D is held still: gradients pass through it, none stays in its parameters.

        Args:
            n: how many images.
            y: as in :meth:`labels`.
            rng: draws the noise, and the labels where ``y`` is None.

        Returns:
            ``loss``, to differentiate, and detached ``loss_g`` (the same number).

        Raises:
            ValueError: as :meth:`labels`.
        """
        y = self.labels(n, y, rng)
        with held_still(self.discriminator):
            loss = self.loss.generator(self.discriminator(self.generate(n, y, rng), y=y))
        return {"loss": loss, "loss_g": loss.detach()}

    def training_step(
        self,
        x: Tensor,
        y: Tensor | None = None,
        optimizer_d: Any = None,
        optimizer_g: Any = None,
        rng: Generator | None = None,
    ) -> Terms:
        """One alternation: k steps of D, each on its own k-th part of the batch, then one of G.

        Args:
            x: images (k·m, *shape) in the data's range; each step of either side sees m.
            y: labels (k·m), where there are classes.
            optimizer_d, optimizer_g: over the parameters of the one and of the other.
            rng: draws all noise.

        Returns:
            Detached terms to log: those of the last critic step but ``loss``, and ``loss_g``.

        Raises:
            TypeError: an optimizer is missing.
            ValueError: critic_steps does not divide the batch; shapes or labels do not fit.
        """
        if optimizer_d is None or optimizer_g is None:
            raise TypeError("GAN.training_step: expected optimizer_d and optimizer_g, one for each network")
        k = self.critic_steps
        m, rest = divmod(x.shape[0], k)
        if rest or not m:
            raise ValueError(f"GAN.training_step: a batch of {x.shape[0]} cannot be split among {k} critic steps")
        if (shared := parts_of(x.shape[0])) is not None:
            shared[0].cut(m)
        terms: Terms = {}
        label: Tensor | None = None
        for i in range(k):
            label = None if y is None else y[i * m : (i + 1) * m]
            terms = self.critic_step(x[i * m : (i + 1) * m], label, rng)
            optimizer_d.zero_grad()
            terms.pop("loss").backward()
            optimizer_d.step()
            if self.clip is not None:
                clip_weights(self.discriminator, self.clip)
        generated = self.generator_step(m, label, rng)
        optimizer_g.zero_grad()
        generated.pop("loss").backward()
        optimizer_g.step()
        return terms | generated

    # -- drawing

    @no_grad()
    def sample(self, n: int, y: Any = None, rng: Generator | None = None, batch_size: int = 500) -> Tensor:
        """n images G(z), in the data's range, with the running statistics of BatchNorm.

        Args:
            n: how many, ≥ 0.
            y: a class for all, one for each (n), or None: classes drawn evenly.
            rng: draws the noise, and the labels.
            batch_size: how many at once; the images are the same for any.

        Returns:
            (n, *shape), in [0, 1] for images.

        Raises:
            ValueError: as :meth:`labels`, or batch_size < 1.
        """
        if batch_size < 1:
            raise ValueError(f"GAN.sample: expected batch_size ≥ 1, got {batch_size}")
        weight = next(self.generator.parameters())
        y = self.labels(n, y, rng)
        z = randn(n, self.generator.latent, rng=rng, dtype=weight.dtype, device=weight.device)
        return self.decode(z, y, batch_size)

    @no_grad()
    def decode(self, z: Tensor, y: Tensor | None = None, batch_size: int = 500) -> Tensor:
        """The images of given noise: z (n, latent), labels (n) or None → (n, *shape), in the data's range.

        Nothing is recorded, and the generator is as it is in ``eval()`` while this lasts.
        """
        with evaluating(self.generator):
            parts = [
                self.generator(z[i : i + batch_size], None if y is None else y[i : i + batch_size])
                for i in range(0, max(1, z.shape[0]), batch_size)
            ]
        return self.to_data(cat(parts))


@contextmanager
def held_still(module: nn.Module) -> Iterator[None]:
    """Inside, no parameter of the module asks for a gradient; what is recorded gives it none later either."""
    wanted = [p for p in module.parameters() if p.requires_grad]
    for p in wanted:
        p.requires_grad = False
    try:
        yield
    finally:
        for p in wanted:
            p.requires_grad = True


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module and its parts are in ``eval()``; after it each is in the mode that it was in."""
    modes: Sequence[tuple[nn.Module, bool]] = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
