"""Diffusion: a schedule of noise, a network that takes it out, and samplers that do so until an image is left."""

from tinygen.models.diffusion.ddpm import DDPM, guided
from tinygen.models.diffusion.editing import inpaint, interpolate, noising_chain
from tinygen.models.diffusion.likelihood import best_deviation, bits_per_dimension, discretised_gaussian
from tinygen.models.diffusion.losses import LOSSES, loss_weights
from tinygen.models.diffusion.mlp import MLPDenoiser
from tinygen.models.diffusion.samplers import DDIMSampler, DDPMSampler, Sampler
from tinygen.models.diffusion.schedule import NoiseSchedule, spaced
from tinygen.models.diffusion.targets import TARGETS, add_noise, target_of, to_epsilon, to_x0
from tinygen.models.diffusion.unet import UNet, time_features
