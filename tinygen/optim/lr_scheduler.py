"""Learning-rate schedules: γ as a function of the epoch t (or of the step: t counts calls of ``step()``).

Each schedule is written as PyTorch's, as a rule that takes the rate of t − 1 to the rate of t, so that several can be
stepped one after the other and a rate that was changed by hand is gone on with. The closed form, γ_t from the base
rate γ₀ alone, stands in the docstring, and a schedule that begins inside a :class:`SequentialLR` starts from it.

Call ``scheduler.step()`` after ``optimizer.step()``.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from tinygen.arguments import refuse
from tinygen.backend import CaptureError, capture
from tinygen.optim.optimizer import Group, Optimizer


class LRScheduler:
    """What all schedules share. Making one sets the optimizer's rates to those of t = 0.

    Args:
        optimizer: whose ``param_groups[i]["lr"]`` it sets.
        last_epoch: only −1: begin anew, with the optimizer's rates as base rates γ₀ (kept as ``"initial_lr"`` in its
            groups). Anything else is refused: ``load_state_dict`` goes on with a schedule.

    Attributes:
        base_lrs: γ₀ of each group. last_epoch: t.

    Raises:
        TypeError: it is not an Optimizer.
        NotImplementedError: last_epoch is given.

    Source: ``torch.optim.lr_scheduler.LRScheduler``.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        _check_optimizer(optimizer, type(self).__name__)
        self.optimizer = optimizer
        refuse(type(self).__name__, "load_state_dict goes on with a schedule", last_epoch=(last_epoch, -1))
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = -1
        self._last_lr: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.step()

    def _rate(self, t: int, lr: float, i: int) -> float:
        """γ_t of group i, from its rate of t − 1 (γ₀ where t = 0)."""
        raise NotImplementedError(f"{type(self).__name__} does not define _rate")

    def _closed(self, t: int, base: float, i: int) -> float:
        """γ_t of group i from its base rate γ₀ alone."""
        raise NotImplementedError(f"{type(self).__name__} does not define _closed")

    def get_last_lr(self) -> list[float]:
        """The rate of each group, as last set by this schedule."""
        return list(self._last_lr)

    def step(self) -> None:
        """Go on to t + 1 and set the rates.

        Raises:
            CaptureError: inside a step that is being captured, whose replays would not do it.
        """
        if capture.get() is not None:
            raise CaptureError(
                f"tg.capture: {type(self).__name__}.step() inside the captured step would be done once and never "
                "again; call it after the step (the optimizer brings the new rate to the device)"
            )
        t = self.last_epoch = self.last_epoch + 1
        self._set([self._rate(t, group["lr"], i) for i, group in enumerate(self._groups())])

    def _begin(self) -> None:
        """Go to t = 0 and set the rates by the closed form, whatever they are now."""
        self.last_epoch = 0
        self._set([self._closed(0, base, i) for i, base in enumerate(self.base_lrs)])

    def _groups(self) -> list[Group]:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            raise RuntimeError(
                f"{type(self).__name__}: the optimizer has {len(groups)} parameter groups, it had {len(self.base_lrs)} "
                "when this schedule was made; add groups first"
            )
        return groups

    def _set(self, rates: list[float]) -> None:
        for group, rate in zip(self._groups(), rates):
            group["lr"] = rate
        self._last_lr = rates

    def state_dict(self) -> dict[str, Any]:
        """All but the optimizer and functions: numbers, strings and lists."""
        return {key: _plain(value) for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state. The rates themselves are in the optimizer's state_dict: load that too.

        Raises:
            ValueError: the state is of another schedule; nothing was changed.
        """
        mine = self.state_dict()
        if not isinstance(state_dict, dict) or set(mine) != set(state_dict):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: expected {', '.join(mine)}; got "
                f"{', '.join(state_dict) if isinstance(state_dict, dict) else type(state_dict).__name__}"
            )
        if len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: the state is of {len(state_dict['base_lrs'])} parameter "
                f"groups, the optimizer has {len(self.base_lrs)}"
            )
        for key, value in state_dict.items():
            setattr(self, key, list(value) if isinstance(value, (list, tuple)) else value)


def _check_optimizer(optimizer: Any, who: str) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{who}: expected an Optimizer, got {type(optimizer).__name__}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


class LambdaLR(LRScheduler):
    """γ_t = γ₀·λ(t), for a function λ of one's own.

    Args:
        lr_lambda: λ, or one for each parameter group.
        optimizer, last_epoch: as :class:`LRScheduler`.

    λ is not in ``state_dict``: make the schedule with the same function before loading.

    Raises:
        ValueError: there is another number of functions than of groups.

    Source: ``torch.optim.lr_scheduler.LambdaLR``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        _check_optimizer(optimizer, "LambdaLR")
        groups = optimizer.param_groups
        self.lr_lambdas: list[Callable[[int], float]]
        self.lr_lambdas = [lr_lambda] * len(groups) if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != len(groups):
            raise ValueError(f"LambdaLR: {len(self.lr_lambdas)} functions for {len(groups)} parameter groups")
        super().__init__(optimizer, last_epoch)

    def _rate(self, t: int, lr: float, i: int) -> float:
        return self._closed(t, self.base_lrs[i], i)

    def _closed(self, t: int, base: float, i: int) -> float:
        return base * self.lr_lambdas[i](t)

    def state_dict(self) -> dict[str, Any]:
        """The place in the schedule; the functions are left out."""
        state = super().state_dict()
        del state["lr_lambdas"]
        return state


class StepLR(LRScheduler):
    """γ_t = γ₀·g^⌊t/s⌋: times ``gamma`` every ``step_size`` epochs.

    Args:
        step_size: s ≥ 1.
        gamma: g.
        optimizer, last_epoch: as :class:`LRScheduler`.

    Raises:
        ValueError: step_size is not a positive integer.

    Source: ``torch.optim.lr_scheduler.StepLR``.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        if not isinstance(step_size, int) or step_size < 1:
            raise ValueError(f"StepLR: step_size must be a positive integer, got {step_size!r}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def _rate(self, t: int, lr: float, i: int) -> float:
        return lr * self.gamma if t > 0 and t % self.step_size == 0 else lr

    def _closed(self, t: int, base: float, i: int) -> float:
        return base * self.gamma ** (t // self.step_size)


class LinearLR(LRScheduler):
    """γ_t = γ₀·(a + (b − a)·min(t, T)/T): from a factor a to a factor b on a straight line, then constant.

    Args:
        start_factor: a, 0 < a ≤ 1.
        end_factor: b, 0 ≤ b ≤ 1.
        total_iters: T ≥ 1.
        optimizer, last_epoch: as :class:`LRScheduler`.

    Raises:
        ValueError: a factor or total_iters is out of range.

    Source: ``torch.optim.lr_scheduler.LinearLR``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(f"LinearLR: start_factor must be 0 < a ≤ 1, got {start_factor}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"LinearLR: end_factor must be 0 ≤ b ≤ 1, got {end_factor}")
        if not total_iters >= 1:
            raise ValueError(f"LinearLR: total_iters must be at least 1, got {total_iters}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def _factor(self, t: int) -> float:
        a, b, T = self.start_factor, self.end_factor, self.total_iters
        return a + (b - a) * min(t, T) / T

    def _rate(self, t: int, lr: float, i: int) -> float:
        if t == 0:
            return lr * self.start_factor
        if t > self.total_iters:
            return lr
        # γ_t = γ_{t−1} · f(t)/f(t−1)
        return lr * self._factor(t) / self._factor(t - 1)

    def _closed(self, t: int, base: float, i: int) -> float:
        return base * self._factor(t)


class CosineAnnealingLR(LRScheduler):
    """γ_t = η + ½(γ₀ − η)(1 + cos(πt/T)): half a cosine from γ₀ down to η; beyond T it climbs again.

    Args:
        T_max: T ≥ 1.
        eta_min: η.
        optimizer, last_epoch: as :class:`LRScheduler`.

    Raises:
        ValueError: T_max is below 1.

    Source: Loshchilov & Hutter, *SGDR* (2016), eq. 5; ``torch.optim.lr_scheduler.CosineAnnealingLR``.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if not T_max >= 1:
            raise ValueError(f"CosineAnnealingLR: T_max must be at least 1, got {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def _rate(self, t: int, lr: float, i: int) -> float:
        η, T = self.eta_min, self.T_max
        if t == 0:
            return lr
        if (t - 1 - T) % (2 * T) == 0:
            # γ_{t−1} = η: the quotient below would be 0/0
            return lr + (self.base_lrs[i] - η) * (1 - math.cos(math.pi / T)) / 2
        # (γ_t − η)/(γ_{t−1} − η) = (1 + cos(πt/T))/(1 + cos(π(t−1)/T))
        return η + (lr - η) * (1 + math.cos(math.pi * t / T)) / (1 + math.cos(math.pi * (t - 1) / T))

    def _closed(self, t: int, base: float, i: int) -> float:
        η, T = self.eta_min, self.T_max
        return η + 0.5 * (base - η) * (1 + math.cos(math.pi * t / T))


class SequentialLR(LRScheduler):
    """γ_t = γ⁽ᵏ⁾_(t − mₖ) for mₖ ≤ t < mₖ₊₁: one schedule after another, each counting t from 0 when its turn comes.

    Args:
        optimizer: that of all the schedules.
        schedulers: made before, with that optimizer.
        milestones: the t at which the second, third, … schedule takes over; increasing.
        last_epoch: as :class:`LRScheduler`.

    Raises:
        ValueError: a schedule is of another optimizer, or the milestones are not increasing and one fewer than the
            schedules.

    Source: ``torch.optim.lr_scheduler.SequentialLR``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        _check_optimizer(optimizer, "SequentialLR")
        refuse("SequentialLR", "load_state_dict goes on with a schedule", last_epoch=(last_epoch, -1))
        schedulers, milestones = list(schedulers), list(milestones)
        if not schedulers:
            raise ValueError("SequentialLR: expected at least one schedule")
        for i, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, LRScheduler) or scheduler.optimizer is not optimizer:
                raise ValueError(f"SequentialLR: schedulers[{i}] is not a schedule of this optimizer")
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR: {len(schedulers)} schedules: {len(schedulers) - 1} milestones, got {len(milestones)}"
            )
        if any(a >= b for a, b in zip(milestones, milestones[1:])):
            raise ValueError(f"SequentialLR: milestones must be increasing, got {milestones}")
        self._schedulers, self._milestones = schedulers, milestones
        self.optimizer = optimizer
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = 0
        # Every schedule has set its rates of t = 0 when it was made; only the first one's are to hold.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for scheduler in schedulers:
            scheduler.last_epoch -= 1
        schedulers[0].step()
        self._last_lr = schedulers[0].get_last_lr()

    def step(self) -> None:
        """Go on to t + 1, in the schedule whose turn it is."""
        self.last_epoch += 1
        turn = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[turn]
        if turn > 0 and self._milestones[turn - 1] == self.last_epoch:
            scheduler._begin()
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """The place in the sequence and the state of every schedule."""
        state = super().state_dict()
        state["_schedulers"] = [scheduler.state_dict() for scheduler in self._schedulers]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: the state is of other schedules; nothing was changed.
        """
        before = self.state_dict()
        states = state_dict.get("_schedulers", []) if isinstance(state_dict, dict) else []
        if len(states) != len(self._schedulers):
            raise ValueError(
                f"SequentialLR.load_state_dict: the state has {len(states)} schedules, here are {len(self._schedulers)}"
            )
        try:
            for scheduler, state in zip(self._schedulers, states):
                scheduler.load_state_dict(state)
            super().load_state_dict({**state_dict, "_schedulers": self._schedulers})
        except ValueError:
            for scheduler, state in zip(self._schedulers, before["_schedulers"]):
                scheduler.load_state_dict(state)
            raise
