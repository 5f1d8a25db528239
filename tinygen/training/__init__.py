"""Training: a loop that survives, checkpoints that are whole or absent, and a log without gaps."""

from tinygen.serialization import CheckpointError
from tinygen.training.checkpoint import Checkpoint, Stateful, load_checkpoint, save_checkpoint
from tinygen.training.log import JsonlLog, read_log
from tinygen.training.loop import NonFiniteError, Run

__all__ = [
    "Checkpoint", "CheckpointError", "JsonlLog", "NonFiniteError", "Run", "Stateful", "load_checkpoint",
    "read_log", "save_checkpoint",
]
