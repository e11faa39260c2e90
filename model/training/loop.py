"""What every training stage shares.

Seeded batches, a schedule, resumable checkpoints, and a log one can plot.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from model.errors import ParleyError
from model.training.parallel import average_gradients, rank

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

CHECKPOINT_EVERY_S = 180.0
LOG_EVERY_STEPS = 20


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the randomness of one step.

    It is a function of seed and step alone, so that a resumed run is the same run.
    """
    # Neighbouring seeds are a million apart, so that step 5 of one seed is no step of another.
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % (1 << 62))


def learning_rate_scale(step: int, num_steps: int, warmup: int = 50) -> float:
    """Linear warm-up, then linear decay to 2 %."""
    # A worked example with 4,000 steps: at step 9 it is 0.2, at step 50 it is 1, at step 2,025 it
    # is 0.51, and at the end 0.02.
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 - 0.98 * (step - warmup) / max(1, num_steps - warmup)


class TrainingError(ParleyError):
    """Training cannot go on."""


class Trainer:
    """Run `num_steps` steps of one stage, keeping model and optimisers in one checkpoint file.

    Args:
        name: of the stage, its checkpoint and its log.
        directory: where these go; a checkpoint that is there is gone on from.
        model: what is trained.
        optimizers: at their highest rates.
        num_steps: when the stage ends and the rates have come down.
        averaging: how much of the running mean of the weights a step leaves, 0 for no mean. The
            mean scores better than the last weights and lets a stage end before its last step.
            Source: Polyak and Juditsky 1992, "Acceleration of stochastic approximation by
            averaging"; exponential as in Tarvainen and Valpola 2017, section 3.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        num_steps: int,
        averaging: float = 0.0,
    ) -> None:
        self.name = name
        self.directory = directory
        self.model = model
        self.optimizers = optimizers
        self.num_steps = num_steps
        self.rates = [[g["lr"] for g in o.param_groups] for o in optimizers]
        self.step = 0
        self.averaging = averaging
        self.average = (
            {name: p.detach().clone() for name, p in model.named_parameters()} if averaging else {}
        )
        directory.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self._load()

    @property
    def checkpoint(self) -> Path:
        """File that holds the stage's latest state."""
        return self.directory / f"{self.name}.pt"

    def run(self, loss_of: Callable[[int], tuple[torch.Tensor, dict[str, float]]]) -> None:
        """Train: `loss_of(step)` returns the loss to descend and the figures to log."""
        bar = tqdm(
            total=self.num_steps,
            initial=self.step,
            desc=self.name,
            mininterval=5.0,
            disable=rank() > 0,
        )
        saved = time.monotonic()
        with (self.directory / f"{self.name}.jsonl").open("a") as log:
            while self.step < self.num_steps:
                figures = self._descend(loss_of)
                self.step += 1
                bar.update()
                if self.step % LOG_EVERY_STEPS == 0 and rank() == 0:
                    log.write(
                        json.dumps({"step": self.step, "time": round(time.time(), 1), **figures})
                        + "\n"
                    )
                    log.flush()
                    bar.set_postfix({k: f"{v:.3f}" for k, v in figures.items()}, refresh=False)
                if time.monotonic() - saved > CHECKPOINT_EVERY_S:
                    self.save()
                    saved = time.monotonic()
        bar.close()
        self.save()

    def save(self) -> None:
        """Write the checkpoint atomically; the first worker's stands for all."""
        if rank() > 0:
            return
        temporary = self.checkpoint.with_suffix(".tmp")
        state: dict[str, Any] = {
            "step": self.step,
            "model": self.model.state_dict(),
            # Codebook averages are not in the state dict.
            "buffers": dict(self.model.named_buffers()),
            "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        torch.save(state, temporary)
        os.replace(temporary, self.checkpoint)  # noqa: PTH105 - atomic over an existing file

    def _load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
        self.model.load_state_dict(state["model"])
        buffers = dict(self.model.named_buffers())
        for name, value in state["buffers"].items():
            buffers[name].copy_(value)
        for name, mean in self.average.items():
            mean.copy_(state["average"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]

    def _descend(
        self, loss_of: Callable[[int], tuple[torch.Tensor, dict[str, float]]]
    ) -> dict[str, float]:
        scale = learning_rate_scale(self.step, self.num_steps)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            optimizer.zero_grad(set_to_none=True)
        loss, figures = loss_of(self.step)
        # A loss that is not finite makes every weight so with one step. Better to stop here, with
        # the last checkpoint whole.
        if not torch.isfinite(loss):
            msg = f"{self.name}: the loss is {loss.item()} at step {self.step}"
            raise TrainingError(msg)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self._take_into_average()
        return figures

    @torch.no_grad()
    def _take_into_average(self) -> None:
        # Early on the mean is short, or it would remember where training began.
        # At step 0 the share is 1: the mean is the weights themselves. At step 9 it is 0.1, a plain
        # mean of ten. From step 333 on it stays at 0.003.
        share = max(1.0 - self.averaging, 1.0 / (1.0 + self.step))
        for name, parameter in self.model.named_parameters():
            if name in self.average:
                self.average[name].lerp_(parameter, share)


def averaged(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return a checkpoint's weights, with their running means in place where it has them."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    weights: dict[str, torch.Tensor] = {**state["model"], **state["average"]}
    return weights
