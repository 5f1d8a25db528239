"""What the game comes to when D is perfect: for distributions that are known, the optimum in closed form.

p and q here are the densities of data and generator at the same K points (or the probabilities of K outcomes); sums
stand for integrals. The discriminator need not be a network: one number for each outcome is enough, and the best
such numbers are these.

Source: Goodfellow et al., *Generative Adversarial Nets* (2014), section 4.1.
"""

from __future__ import annotations

from tinygen.ops.elementwise import log, where
from tinygen.ops.reduction import sum as total
from tinygen.tensor import Tensor


def optimal_discriminator(p: Tensor, q: Tensor) -> Tensor:
    """D*(x) = p(x)/(p(x) + q(x)): the probability that x, drawn from either with even odds, was real.

    ½ where neither has any mass: such an x never comes, and whatever D says there costs nothing.

    Shapes: p, q (*), values ≥ 0 → (*), values in [0, 1].

    Source: Goodfellow et al. (2014), proposition 1.
    """
    both = p + q
    nowhere = both == 0
    return where(nowhere, 0.5, p / where(nowhere, 1.0, both))


def game_value(D: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """V(D) = Σ p ln D + Σ q ln(1 − D), with 0·ln 0 = 0; the discriminator maximises it, the generator the opposite.

    Shapes: all (K,), D in [0, 1] → a scalar, in nats; −∞ where D is certain and wrong.

    Source: Goodfellow et al. (2014), eq. 1.
    """
    return total(_x_ln_y(p, D)) + total(_x_ln_y(q, 1 - D))


def kullback_leibler(p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q) = Σ p ln(p/q), with 0·ln 0 = 0, in nats; ∞ where p has mass and q has none. Shapes: (K,) → a scalar."""
    return total(_x_ln_y(p, p)) - total(_x_ln_y(p, q))


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """JS(p, q) = ½KL(p‖m) + ½KL(q‖m), m = ½(p + q), from 0 (q = p) to ln 2 (no overlap), in nats.

    It is what the generator minimises against the best discriminator: V(D*) = −ln 4 + 2·JS(p, q).

    Shapes: (K,) → a scalar.

    Source: Goodfellow et al. (2014), theorem 1.
    """
    m = 0.5 * (p + q)
    return 0.5 * kullback_leibler(p, m) + 0.5 * kullback_leibler(q, m)


def _x_ln_y(x: Tensor, y: Tensor) -> Tensor:
    """x·ln y, and 0 where x is 0, also in its derivative: 0·ln 0 would be NaN."""
    none = x == 0
    return where(none, 0.0, x * log(where(none, 1.0, y)))
