"""Tools for parameters and gradients: clipping, spectral normalisation, all parameters as one vector."""

from tinygen.nn.utils.clip_grad import clip_grad_norm_, clip_grad_value_
from tinygen.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from tinygen.nn.utils.spectral_norm import remove_spectral_norm, spectral_norm
