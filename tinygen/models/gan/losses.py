"""Adversarial losses: what the discriminator and the generator minimise, one class for each pair.

Let a = D's output for an image, any real number; p the density of the data and q that of the generator. Every loss
has two sides, averaged over the batch:

    L_D = E_p[ f(a) ] + E_q[ g(a) ]        ``discriminator(real, fake)``
    L_G = E_q[ h(a) ]                      ``generator(fake)``

=================  ===================  ===================  ==================  ======================================
loss               f                    g                    h                   at the best D, for this p and q
=================  ===================  ===================  ==================  ======================================
Minimax            −ln σ(a)             −ln(1 − σ(a))        ln(1 − σ(a))        σ(a*) = p/(p + q), L_D = ln 4 − 2·JS
NonSaturating      −ln σ(a)             −ln(1 − σ(a))        −ln σ(a)            the same
LeastSquares       ½(a − 1)²            ½a²                  ½(a − 1)²           a* = p/(p + q), L_D = ½∫pq/(p + q)
Hinge              max(0, 1 − a)        max(0, 1 + a)        −a                  a* = sign(p − q), L_D = 2∫min(p, q)
Wasserstein        −a                   a                    −a                  L_D = −W₁(p, q) over 1-Lipschitz D
=================  ===================  ===================  ==================  ======================================

The best D of each compares p and q pointwise and nothing else: it is a two-sample test, and its value a distance of
two distributions. The generator is trained to shorten it. To write another loss, write a class with these methods.

Source: Goodfellow et al., *Generative Adversarial Nets* (2014), and the papers named at each class.
"""

from __future__ import annotations

from tinygen.nn import functional as F
from tinygen.ops.elementwise import sigmoid, square
from tinygen.tensor import Tensor


class AdversarialLoss:
    """The two sides of a loss, and what D's output means.

    Shapes: logits a of any shape, (N) as a rule → a scalar.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = E_p[f(a)] + E_q[g(a)] of D's outputs for real images and for generated ones.

        Raises:
            NotImplementedError: the loss has no such side.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no discriminator(real, fake)")

    def generator(self, fake: Tensor) -> Tensor:
        """L_G = E_q[h(a)] of D's outputs for generated images, through which the generator is differentiated.

        Raises:
            NotImplementedError: the loss has no such side.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no generator(fake)")

    def score(self, a: Tensor) -> Tensor:
        """D(x): what is logged and drawn. The probability of "real" where the loss gives a one, else a itself."""
        return a

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Minimax(AdversarialLoss):
    """The game of the paper: both sides play for one value V, min_G max_D V, where D(x) is σ(a).

        V = E_p[ ln D(x) ] + E_q[ ln(1 − D(x)) ],    L_D = −V,    L_G = E_q[ ln(1 − D(x)) ]

    For fixed p and q the integrand p ln D + q ln(1 − D) is largest where p/D = q/(1 − D), that is at D* = p/(p + q);
    there V = −ln 4 + 2·JS(p, q), least (−ln 4, L_D = 1.386, L_G = −0.693) where q = p and D* = ½ everywhere.

    What is wrong with it: ∂h/∂a = −σ(a) vanishes where D is sure of a fake, just where G has most to learn.

    Computed from logits: −ln σ(a) = softplus(−a) and −ln(1 − σ(a)) = softplus(a), which no a overflows.

    Source: Goodfellow et al. (2014), eq. 1, proposition 1 and theorem 1.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = −E_p[ln σ(a)] − E_q[ln(1 − σ(a))], in nats."""
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """L_G = E_q[ln(1 − σ(a))] = −E_q[softplus(a)]."""
        return -F.softplus(fake).mean()

    def score(self, a: Tensor) -> Tensor:
        """D(x) = σ(a), in (0, 1)."""
        return sigmoid(a)


class NonSaturating(Minimax):
    """The discriminator of :class:`Minimax`, and a generator that maximises ln D instead of minimising ln(1 − D).

        L_G = −E_q[ ln σ(a) ] = E_q[ softplus(−a) ]

    The same fixed point (L_G = ln 2 = 0.693 at D = ½), but ∂h/∂a = −(1 − σ(a)) is largest where D is sure of a fake.

    Source: Goodfellow et al. (2014), end of section 3.
    """

    def generator(self, fake: Tensor) -> Tensor:
        """L_G = −E_q[ln σ(a)], in nats."""
        return F.softplus(-fake).mean()


class LeastSquares(AdversarialLoss):
    """D regresses to 1 for real and 0 for fake; G wants its images regressed to 1.

        L_D = ½E_p[(a − 1)²] + ½E_q[a²],    L_G = ½E_q[(a − 1)²]

    p(a − 1) + q·a = 0 gives a* = p/(p + q), and L_D = ½∫pq/(p + q): ¼ where q = p. The gradient a − 1 fades only where
    D takes the fake for real. It pulls by how far a is off, also when a is on the right side.

    Source: Mao et al., *Least Squares Generative Adversarial Networks* (2017), eq. 2 and 9 (a = 0, b = c = 1).
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = ½E_p[(a − 1)²] + ½E_q[a²]."""
        return 0.5 * square(real - 1).mean() + 0.5 * square(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """L_G = ½E_q[(a − 1)²]."""
        return 0.5 * square(fake - 1).mean()


class Hinge(AdversarialLoss):
    """D wants a ≥ 1 for real and a ≤ −1 for fake, and no more than that.

        L_D = E_p[max(0, 1 − a)] + E_q[max(0, 1 + a)],    L_G = −E_q[a]

    Between −1 and 1 the integrand is p(1 − a) + q(1 + a), linear in a: its least value is at an end, a* = sign(p − q),
    and is 2·min(p, q). So L_D = 2∫min(p, q) = 2 − 2·TV(p, q): 2 where q = p, 0 where they do not overlap.

    Source: Lim & Ye, *Geometric GAN* (2017); Miyato et al. (2018), eq. 16 and 17.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = E_p[max(0, 1 − a)] + E_q[max(0, 1 + a)]."""
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """L_G = −E_q[a]."""
        return -fake.mean()


class Wasserstein(AdversarialLoss):
    """D, called the critic, is a price whose mean differs as much as it can, with a slope of at most 1.

        L_D = E_q[a] − E_p[a],    L_G = −E_q[a]

    By Kantorovich and Rubinstein the greatest E_p[a] − E_q[a] over all 1-Lipschitz a is W₁(p, q), the least work to
    carry q's mass to p; it shrinks smoothly also where p and q do not overlap. The bound on the slope must come from
    elsewhere: a gradient penalty, clipped weights, or spectral normalisation. Without one L_D falls without end.

    Source: Arjovsky, Chintala & Bottou, *Wasserstein Generative Adversarial Networks* (2017), eq. 2 and 3.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """L_D = E_q[a] − E_p[a], an estimate of −W₁ when D is good."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """L_G = −E_q[a]."""
        return -fake.mean()


LOSSES: dict[str, type[AdversarialLoss]] = {
    "minimax": Minimax,
    "non-saturating": NonSaturating,
    "least-squares": LeastSquares,
    "hinge": Hinge,
    "wasserstein": Wasserstein,
}


def adversarial_loss(loss: str | AdversarialLoss) -> AdversarialLoss:
    """A loss by its name, one of ``LOSSES``; a loss itself comes back as it is.

    Raises:
        ValueError: there is no loss of that name.
        TypeError: it is neither a name nor an AdversarialLoss.
    """
    if isinstance(loss, AdversarialLoss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"loss: expected a name or an AdversarialLoss, got {type(loss).__name__}")
    if loss not in LOSSES:
        raise ValueError(f"there is no adversarial loss {loss!r}; there are {', '.join(LOSSES)}")
    return LOSSES[loss]()
