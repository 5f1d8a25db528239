"""Generative adversarial networks: losses, penalties, networks, the game, and what it comes to when D is perfect."""

from tinygen.models.gan.coverage import Coverage, mode_coverage
from tinygen.models.gan.losses import (
    LOSSES,
    AdversarialLoss,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Wasserstein,
    adversarial_loss,
)
from tinygen.models.gan.model import GAN
from tinygen.models.gan.networks import (
    ConvDiscriminator,
    ConvGenerator,
    DenseDiscriminator,
    DenseGenerator,
    init_normal,
)
from tinygen.models.gan.optimum import game_value, jensen_shannon, kullback_leibler, optimal_discriminator
from tinygen.models.gan.penalties import clip_weights, gradient_penalty, input_gradient, interpolates, r1_penalty
