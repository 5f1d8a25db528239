"""Bounds on the slope of a discriminator: two penalties on ∇ₓD, and the clipping of weights.

A penalty is a function of ∇ₓD(x), so its gradient with respect to D's weights is a second derivative of D: the inner
gradient is taken with ``create_graph=True``. One batch gives all inner gradients in one sweep,

    ∇_{x_n} Σ_m D(x_m) = ∇_{x_n} D(x_n),

but only if D looks at each image by itself. A BatchNorm in D mixes the images of a batch, and what is then penalised is
something else; GAN refuses it.

Source: Gulrajani et al. (2017); Mescheder, Geiger & Nowozin (2018).
"""

from __future__ import annotations

from collections.abc import Callable

from tinygen.autograd import grad
from tinygen.nn import Module
from tinygen.ops.elementwise import clamp, square
from tinygen.random import Generator, rand
from tinygen.recording import enable_grad, no_grad
from tinygen.tensor import Tensor


def input_gradient(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """g_n = ∇ₓD(x_n) for each image of a batch, recorded, so that it can be differentiated again.

    Shapes: x (N, *) and D(x) (N), or (N, 1) → (N, *).

    Raises:
        ValueError: D does not give one number for each image.
    """
    with enable_grad():
        x = x.detach().requires_grad_()
        a = critic(x)
        if a.shape not in ((x.shape[0],), (x.shape[0], 1)):
            raise ValueError(f"a penalty needs one number of D for each of {x.shape[0]} images, got shape {a.shape}")
        (g,) = grad(a.sum(), [x], create_graph=True)
    assert g is not None
    return g


def slopes(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """‖∇ₓD(x_n)‖₂ over all axes of an image, (N, *) → (N). Its derivative where the gradient is 0 is taken as 0."""
    return input_gradient(critic, x).flatten(1).norm(dim=1)


def interpolates(real: Tensor, fake: Tensor, rng: Generator | None = None) -> Tensor:
    """x̂ = εx + (1 − ε)x̃, ε ~ U[0, 1), one ε for each pair: points on straight lines between real and fake.

    Shapes: both (N, *) → (N, *), detached.

    Raises:
        ValueError: the shapes differ.

    Source: Gulrajani et al. (2017), algorithm 1, lines 4 to 6.
    """
    if real.shape != fake.shape:
        raise ValueError(f"interpolates: expected as many fake as real images of one size, got {fake.shape} beside "
                         f"{real.shape}")
    real, fake = real.detach(), fake.detach()
    ε = rand(real.shape[0], *[1] * (real.ndim - 1), rng=rng, dtype=real.dtype, device=real.device)
    return ε * real + (1 - ε) * fake


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    rng: Generator | None = None,
    target: float = 1.0,
) -> Tensor:
    """P = E[ (‖∇D(x̂)‖₂ − 1)² ] at points x̂ between real and fake: WGAN-GP's penalty, which the caller weighs by λ = 10.

    The best critic of W₁ has slope 1 almost everywhere on the lines that carry q to p, which is why the penalty has
    two sides and why it is taken between the images and not on them. The norm is over all axes but the first: one
    slope for each image.

    For a linear critic D(x) = ⟨w, x⟩ it is (‖w‖ − 1)², whatever the images, with the gradient 2(‖w‖ − 1)w/‖w‖; at
    w = 0, where that is 0/0, the subgradient 0 is taken.

    Args:
        critic: images (N, *) → (N), each by itself.
        real, fake: the same shape.
        rng: draws ε.
        target: the slope that costs nothing; 0 gives WGAN with a zero-centred penalty (Thanh-Tung et al. 2019).

    Returns:
        The penalty, a scalar, without λ.

    Raises:
        ValueError: the shapes differ, or the critic gives more than a number for each image.

    Source: Gulrajani et al., *Improved Training of Wasserstein GANs* (2017), eq. 3 and proposition 1.
    """
    return square(slopes(critic, interpolates(real, fake, rng)) - target).mean()


def r1_penalty(critic: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """R₁ = E_p[ ‖∇D(x)‖² ] on real images, which the caller weighs by γ/2.

    At the end of the game, where q = p, D should be flat on the data; a slope there pushes G away from the solution
    it has found. With the penalty, GAN training converges locally; without any it need not.

    For a linear D(x) = ⟨w, x⟩ it is ‖w‖².

    Args:
        critic: images (N, *) → (N), each by itself.
        real: images (N, *).

    Returns:
        The penalty, a scalar, without γ/2.

    Raises:
        ValueError: the critic gives more than a number for each image.

    Source: Mescheder, Geiger & Nowozin, *Which Training Methods for GANs do actually Converge?* (2018), eq. 9.
    """
    return square(input_gradient(critic, real)).flatten(1).sum(1).mean()


@no_grad()
def clip_weights(module: Module, c: float = 0.01) -> None:
    """w ← min(max(w, −c), c) for every parameter w (*): the first, rough way to bound the slope of a critic.

    Clipped weights keep D in a set of functions with a bounded slope, though nobody knows which bound; most weights end
    at ±c, and D becomes too simple (Gulrajani et al. 2017, section 3). It is here to be compared with.

    Raises:
        ValueError: c ≤ 0.

    Source: Arjovsky, Chintala & Bottou (2017), algorithm 1, line 7.
    """
    if not c > 0:
        raise ValueError(f"clip_weights: expected c > 0, got {c}")
    for w in module.parameters():
        w.copy_(clamp(w, -c, c))
