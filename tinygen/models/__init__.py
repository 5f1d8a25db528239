"""The generative models, each in a file of its own that reads as its paper does."""

from tinygen.models.autoencoder import (
    Autoencoder,
    ConvAutoencoder,
    DenseAutoencoder,
    StackedAutoencoder,
    pretrain_greedily,
)
from tinygen.models.corruption import corrupt
from tinygen.models.diffusion import DDPM, DDIMSampler, DDPMSampler, MLPDenoiser, NoiseSchedule, UNet
from tinygen.models.gan import GAN, ConvDiscriminator, ConvGenerator, DenseDiscriminator, DenseGenerator
from tinygen.models.vae import (
    VAE,
    VQVAE,
    BernoulliLikelihood,
    CodePrior,
    ConvDecoder,
    ConvEncoder,
    ConvVAE,
    ConvVQVAE,
    DenseDecoder,
    DenseEncoder,
    DenseVAE,
    GaussianLikelihood,
    MixturePrior,
    NormalPrior,
    VampPrior,
    VectorQuantizer,
)
