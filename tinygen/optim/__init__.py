"""Optimizers, learning-rate schedules, and the running average of a model's weights."""

from tinygen.optim import lr_scheduler
from tinygen.optim.adam import Adam, AdamW
from tinygen.optim.ema import EMA
from tinygen.optim.optimizer import Optimizer
from tinygen.optim.rmsprop import RMSprop
from tinygen.optim.sgd import SGD
