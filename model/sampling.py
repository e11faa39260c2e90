"""How tokens are chosen, in words that settings can say; `model.transformer.sampling` does it."""

from __future__ import annotations

from dataclasses import dataclass

from model.precision import Backend


@dataclass(frozen=True, slots=True)
class Sampling:
    """Say how tokens are chosen.

    Attributes:
        temperature: divides the logits; 0 is greedy.
        top_k: keep this many of the most probable tokens; 0 keeps all.
        backend: of `kernels.sampling`. Of tokens that are equally probable it takes the lower ones
            first, "reference" whichever PyTorch's `topk` does.
    """

    temperature: float = 0.0
    top_k: int = 0
    backend: Backend = "reference"

    def num_candidates(self, vocab: int) -> int:
        """Return how many tokens stay in the draw, which is how much noise a draw takes."""
        # Of 2,048 codes with a top-k of 250, a draw takes 250 numbers of noise and not 2,048.
        return min(self.top_k, vocab) if self.top_k else vocab


GREEDY = Sampling()
