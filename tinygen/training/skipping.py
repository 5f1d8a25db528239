"""Skipping: a step whose gradient is nan or infinite is not taken, and counted.

One bad batch, or one overflow in float16, need not end a run of a night. The optimizer asks before it moves anything
(:attr:`tinygen.optim.Optimizer.guard`): where a gradient is not finite all gradients are forgotten, so that no
parameter moves and no average learns of it, and what the forward pass wrote to buffers (BatchNorm's running
statistics) is put back.

Source: the rule is that of loss scaling, Micikevicius et al., *Mixed Precision Training* (2018), section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygen.backend import array_module
from tinygen.nn.module import Module
from tinygen.optim.optimizer import Optimizer
from tinygen.recording import no_grad
from tinygen.tensor import Tensor


class Skipper:
    """The guard of all optimizers among a run's objects.

    Args:
        objects: what the run saves; its optimizers are guarded, its modules' buffers put back.
        most: how many steps in a row may be skipped, ≥ 1.

    Attributes:
        total: steps skipped so far. in_a_row: of these, the last ones without a good one between.

    Raises:
        ValueError: there is no optimizer among the objects.
    """

    def __init__(self, objects: Mapping[str, Any], most: int) -> None:
        self.optimizers = [thing for thing in objects.values() if isinstance(thing, Optimizer)]
        self.modules = [thing for thing in objects.values() if isinstance(thing, Module)]
        self.most, self.total, self.in_a_row = most, 0, 0
        if not self.optimizers:
            raise ValueError("skip_non_finite: there is no tinygen.optim optimizer among the objects to skip a step of")
        self._bad = False
        self._kept: list[tuple[Tensor, Any]] = []

    def begin(self) -> None:
        """A step begins: note the buffers."""
        self._bad = False
        self._kept = [(b, b.data.copy(order="K")) for module in self.modules for b in module.buffers()]
        for optimizer in self.optimizers:
            optimizer.guard = self._look

    def end(self) -> bool:
        """The step is over: whether it was skipped, or a part of it (one of a GAN's two players)."""
        for optimizer in self.optimizers:
            optimizer.guard = None  # a guard that stayed would be a cycle
        self._kept = []
        self.total += self._bad
        self.in_a_row = self.in_a_row + 1 if self._bad else 0
        return self._bad

    def _look(self, optimizer: Optimizer) -> None:
        found = [p.grad.data for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if all(bool(array_module(g).isfinite(g).all()) for g in found):
            return
        self._bad = True
        optimizer.zero_grad()
        with no_grad():
            for buffer, before in self._kept:
                buffer.copy_(before)
