"""Training: a loop that survives, checkpoints that are whole or absent, and a log without gaps."""

from tinygen.serialization import CheckpointError, DamagedError
from tinygen.training.checkpoint import (
    Checkpoint,
    CheckpointWarning,
    Stateful,
    load_checkpoint,
    load_newest,
    previous_path,
    save_checkpoint,
)
from tinygen.training.lock import FolderInUseError, FolderLock, FolderLockWarning
from tinygen.training.log import JsonlLog, LogError, read_log
from tinygen.training.loop import NonFiniteError, Run
from tinygen.training.parallel import ParallelError, ParallelRun, join, make_run

__all__ = [
    "Checkpoint", "CheckpointError", "CheckpointWarning", "DamagedError", "FolderInUseError", "FolderLock",
    "FolderLockWarning", "JsonlLog", "LogError", "NonFiniteError", "ParallelError", "ParallelRun", "Run", "Stateful",
    "join", "load_checkpoint", "load_newest", "make_run", "previous_path", "read_log", "save_checkpoint",
]
