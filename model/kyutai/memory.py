"""What serving a model of the Kyutai family costs in memory, worked out from its sizes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from model.codec.mimi import MimiConfig, session_bytes
from model.codec.mimi.names import sources as mimi_sources
from model.kyutai.config import KyutaiConfig
from model.kyutai.weights import packed_shapes, skeleton
from model.transformer.linears import hot_linears

SESSIONS = (1, 8, 32, 64)
KV_BITS = (16, 8)
WEIGHTS = ("bf16", "int8", "nf4")

# Steps that an engine keeps beyond the window, to take back what a client cuts short: what waits in
# a client to be played is hardly ever more than a few seconds.
REACH_FRAMES = 125

_EIGHT_BIT_SCALE = 2  # bytes, of each head's keys or values of a step


@dataclass(frozen=True, slots=True)
class Memory:
    """How much memory serving takes, in bytes, before any step runs.

    Attributes:
        weights: of the language model, by how the linears are held that a step spends its time in:
            "bf16", "int8", "nf4". All else is bf16.
        mimi: weights of the codec, float32, with the codebooks that are used.
        mimi_session: what the codec remembers of one session, both directions, float32.
        heads: key heads and value heads of all layers.
        head_dim: width of a head.
        context: steps that the model was trained to remember.
    """

    weights: Mapping[str, int]
    mimi: int
    mimi_session: int
    heads: int
    head_dim: int
    context: int

    def session(self, window: int | None = None, kv_bits: int = 16) -> int:
        """Return what one session takes at most: keys and values, and the codec's state.

        Args:
            window: steps that are remembered; None for all that the model was trained to. The
                steps that can be taken back come on top.
            kv_bits: 16, or 8 with a scale for each head's keys and values of a step.
        """
        assert kv_bits in KV_BITS, kv_bits
        # A worked example, Moshi: 32 layers with 32 heads each have 2 * 32 * 32 = 2,048 heads of
        # keys and values, 128 wide. In 16 bits a step takes 2,048 * 256 bytes = 0.5 MiB, and 3,000
        # steps with 125 to go back take 1.64 GB. In 8 bits it is 130 bytes a head, and 0.83 GB.
        head = 2 * self.head_dim if kv_bits == 16 else self.head_dim + _EIGHT_BIT_SCALE
        steps = (window or self.context) + REACH_FRAMES
        return steps * self.heads * head + self.mimi_session

    def total(
        self, weights: str, sessions: int, window: int | None = None, kv_bits: int = 16
    ) -> int:
        """Return what so many sessions take together with the weights; arguments as `session`."""
        return self.weights[weights] + self.mimi + sessions * self.session(window, kv_bits)


def memory_of(config: KyutaiConfig, mimi: MimiConfig) -> Memory:
    """Work out what a model costs."""
    # A skeleton has shapes and no numbers. So the memory of a 7-billion model is worked out on a
    # machine that could not hold it, from the same modules that would be loaded.
    lm = skeleton(config)
    hot = hot_linears(lm)
    other = sum(t.numel() for n, t in lm.state_dict().items() if n.rpartition(".")[0] not in hot)
    shapes = [(linear.out_features, linear.in_features) for linear in hot.values()]
    weights = {
        "bf16": 2 * (other + sum(map(math.prod, shapes))),
        # Int8 has a byte a weight, and two bytes of scale for each row.
        "int8": 2 * other + sum(rows * (columns + 2) for rows, columns in shapes),
        "nf4": 2 * other + sum(map(_nf4_bytes, shapes)),
    }
    stack = config.backbone
    used = replace(mimi, num_codebooks=config.num_mimi_codebooks)
    codec = sum(
        math.prod(shape)
        for source in mimi_sources(used, "kyutai").values()
        for shape in source.tensors.values()
    )
    return Memory(
        weights=weights,
        mimi=4 * codec,
        mimi_session=session_bytes(mimi),
        heads=2 * stack.num_layers * stack.num_kv_heads,
        head_dim=stack.head_dim,
        context=stack.context,
    )


def _nf4_bytes(shape: tuple[int, int]) -> int:
    # Half a byte a weight, and four bytes for every 64 of them: 4.5 bits.
    parts = packed_shapes(shape)
    return math.prod(parts[""]) + 4 * math.prod(parts["absmax"])
