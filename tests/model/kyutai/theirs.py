"""Runs of Kyutai's own language model, written down step by step."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from model.transformer.condition import Said, Vectors

UNDECIDED = -2


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What their model did in one step of all rows.

    Attributes:
        tokens: int64 [B, 1 + K], given out.
        chosen: int64 [B, 1 + K], text and codes that were chosen or forced.
        hidden: float [sides * B, dim].
        text_logits: float [B, text_out], guided.
        depth_logits: float [sides * B, K, card]; None without a depth transformer.
    """

    tokens: Tensor
    chosen: Tensor
    hidden: Tensor
    text_logits: Tensor
    depth_logits: Tensor | None


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of their model; the time axis is the last.

    Attributes:
        theirs: the model, from `benchmarks.reference.their_lm`.
        values: its configuration.
        user: int64 [B, codebooks that are not made, T].
        guidance: how far towards the condition.
        forced: int64 [B, 1 + codebooks that are made, T], what is chosen in each step whatever the
            model says, -2 where it chooses; None for nothing.
        told: by conditioner, for each row; empty without conditions.
        untold: the same, of what guidance leads away from.
        active: bool [B, T], rows that take a step.
        reset: bool [B, T], rows that begin anew before it.
        steps: what came of it.
    """

    theirs: Any  # a package without types
    values: Mapping[str, Any]
    user: Tensor
    guidance: float = 1.0
    forced: Tensor | None = None
    told: Sequence[Mapping[str, Said]] = ()
    untold: Sequence[Mapping[str, Said]] = ()
    active: Tensor = field(default_factory=lambda: torch.tensor(0))
    reset: Tensor = field(default_factory=lambda: torch.tensor(0))
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Run it."""
        num_rows, _, num_steps = self.user.shape
        if self.active.dim() == 0:
            self.active = torch.ones(num_rows, num_steps, dtype=torch.bool)
        if self.reset.dim() == 0:
            self.reset = torch.zeros(num_rows, num_steps, dtype=torch.bool)
        with torch.no_grad():
            self._run()

    @property
    def sides(self) -> int:
        """Rows of the model for each row here."""
        return 1 if self.guidance == 1.0 else 2

    def smallest_margin(self) -> float:
        """Return by how much the best logit was above the second best, where this was smallest."""
        smallest = float("inf")
        for step, active in zip(self.steps, self.active.T, strict=True):
            logits = [step.text_logits]
            if step.depth_logits is not None:
                depth = step.depth_logits
                if self.guidance != 1.0:
                    told, untold = depth.chunk(2)
                    depth = untold + (told - untold) * self.guidance
                logits += depth.unbind(1)
            for part in logits:
                if active.any():
                    best = part[active].topk(2, dim=-1).values
                    smallest = min(smallest, float((best[:, 0] - best[:, 1]).min()))
        return smallest

    def _run(self) -> None:
        lm, step, depth_logits, seen = self.theirs, 0, [], {}
        say = lm.forward_depformer

        def depth(codebook: int, tokens: Tensor, hidden: Tensor) -> Tensor:
            logits: Tensor = say(codebook, tokens, hidden)
            depth_logits.append(logits[:, 0, 0].clone())
            if self.forced is not None:
                forced = self.forced[:, 1 + codebook, step].repeat(self.sides)
                rows = (forced != UNDECIDED).nonzero().flatten()
                logits[rows, 0, 0, forced[rows]] = 1e9
            return logits

        def on_text(text: Tensor) -> None:
            if self.forced is not None:
                forced = self.forced[:, 0, step]
                text[:] = torch.where(forced == UNDECIDED, text, forced)
            seen["text"] = text.clone()

        generator = importlib.import_module("moshi.models").LMGen(
            lm,
            use_sampling=False,
            cfg_coef=self.guidance,
            support_out_of_sync=True,
            condition_tensors=self._conditions(),
            on_text_logits_hook=lambda logits: seen.update(logits=logits[:, 0, 0].clone()),
            on_text_hook=on_text,
            on_audio_hook=lambda audio: seen.update(audio=audio.clone()),
        )
        lm.forward_depformer = depth
        try:
            with generator.streaming(len(self.user)):
                for step in range(self.user.shape[2]):
                    depth_logits.clear()
                    generator.reset_streaming(reset_mask=self.reset[:, step])
                    generator.set_exec_mask(self.active[:, step])
                    out, hidden = generator._step(self.user[:, :, step : step + 1])
                    chosen = seen["text"][:, None]
                    if "audio" in seen:
                        chosen = torch.cat([chosen, seen["audio"]], dim=1)
                    self.steps.append(
                        Step(
                            out[:, :, 0].clone(),
                            chosen,
                            hidden[:, 0],
                            seen["logits"],
                            torch.stack(depth_logits, dim=1) if depth_logits else None,
                        )
                    )
        finally:
            del lm.forward_depformer

    def _conditions(self) -> object:
        """Work out what the rows are told, in their package's words."""
        if not self.told:
            return None
        package = importlib.import_module("moshi.conditioners")
        provider = self.theirs.condition_provider
        attributes = []
        for said in [*self.told, *(self.untold if self.sides == 2 else ())]:
            tensors = {
                name: package.TensorCondition(vectors.values[None], vectors.is_present[None])
                for name, vectors in said.items()
                if isinstance(vectors, Vectors)
            }
            text = {name: said.get(name) for name in provider.text_conditions}
            attributes.append(package.ConditionAttributes(text=text, tensor=tensors))
        return provider.prepare_and_provide(attributes)
