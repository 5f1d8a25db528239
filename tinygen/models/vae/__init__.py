"""Variational autoencoders: the model itself, its networks, likelihoods and priors, and the one with a codebook."""

from tinygen.models.vae.autoregressive import CodePrior
from tinygen.models.vae.likelihoods import BernoulliLikelihood, GaussianLikelihood
from tinygen.models.vae.networks import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder
from tinygen.models.vae.priors import MixturePrior, NormalPrior, VampPrior
from tinygen.models.vae.quantizer import VectorQuantizer, perplexity
from tinygen.models.vae.vae import VAE, ConvVAE, DenseVAE
from tinygen.models.vae.vqvae import VQVAE, ConvVQVAE
