"""Layers: modules that own parameters, and ``functional``, the functions that they call."""

from tinygen.nn import functional, init, utils
from tinygen.nn.activation import (
    ELU,
    GELU,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from tinygen.nn.attention import MultiheadAttention
from tinygen.nn.containers import ModuleDict, ModuleList, Sequential
from tinygen.nn.convolution import Conv2d, ConvTranspose2d
from tinygen.nn.dropout import Dropout
from tinygen.nn.linear import Identity, Linear
from tinygen.nn.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from tinygen.nn.module import Module
from tinygen.nn.normalization import BatchNorm1d, BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm
from tinygen.nn.parameter import Parameter
from tinygen.nn.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from tinygen.nn.resampling import PixelShuffle, Upsample
from tinygen.nn.shape import Flatten, Unflatten
from tinygen.nn.sparse import Embedding
