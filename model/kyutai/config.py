"""The `config.json` of a model of the Kyutai family, read strictly.

One set of keys describes Moshi, PersonaPlex, Hibiki and Kyutai's speech-to-text and text-to-speech
models. A key that is not known is refused, and so is a known one whose value nothing here computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from model.config import LMConfig
from model.errors import ConfigError
from model.family import Conditioner, Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Sizes of one transformer.

    Attributes:
        dim: width.
        num_layers: layers.
        num_heads: query heads.
        num_kv_heads: key and value heads.
        ff_dim: hidden width of the gated MLP.
        context: steps that a step sees, itself included.
        rope_base: base of the rotary frequencies.
        rope: which channels rotate against each other, neighbours or halves; None for no positions.
    """

    dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    ff_dim: int
    context: int
    rope_base: float = 10_000.0
    rope: Literal["neighbours", "halves"] | None = "neighbours"

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.dim // self.num_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class KyutaiConfig:
    """What a model of the family consists of.

    Attributes:
        kind: how it is driven: "moshi", "personaplex", "hibiki", "stt" or "tts".
        backbone: the temporal transformer.
        depth: the transformer over the codes of a frame; None if the model makes no audio.
        depth_sets: for each codebook that is made, which set of the depth weights makes it.
        depth_rank: width of the depth transformer's embeddings before their projection; None if
            they have its full width.
        has_depth_norms: whether each depth step normalises before its head.
        text_card: text pieces; the embedding has one row more, the first input.
        text_card_out: text pieces that can come out.
        card: codes of a codebook; embeddings have one row more, as above.
        num_codebooks: audio streams that go in.
        num_generated: how many of them the model makes, the first ones.
        delays: steps by which each stream comes late: text, then the codebooks.
        has_two_texts: whether a text token stands for two pieces (demultiplexed embedding).
        conditioners: by name.
        cross_position_scale: of the positions added to what is attended to; None for none.
        num_extra_heads: how many more heads read the backbone. Speech-to-text models have some,
            for the end of turns; nothing here asks them.
        files: names of the files that the model consists of, as far as they are given.
        options: parts that concern the program around the model: sampling, delays of speech-to-text
            and text-to-speech.
    """

    kind: str
    backbone: Stack
    depth: Stack | None
    depth_sets: tuple[int, ...]
    depth_rank: int | None
    has_depth_norms: bool
    text_card: int
    text_card_out: int
    card: int
    num_codebooks: int
    num_generated: int
    delays: tuple[int, ...]
    has_two_texts: bool
    conditioners: Mapping[str, Conditioner]
    cross_position_scale: float | None
    num_extra_heads: int
    files: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_depth_sets(self) -> int:
        """Sets of depth weights."""
        return max(self.depth_sets, default=-1) + 1

    @property
    def has_cross_attention(self) -> bool:
        """Whether the backbone attends to a condition."""
        return any(c.how == "cross" for c in self.conditioners.values())

    @property
    def num_mimi_codebooks(self) -> int:
        """Codebooks of Mimi that are needed: those made, or those heard if that is more."""
        return max(self.num_made, self.num_codebooks - self.num_made)

    @property
    def num_made(self) -> int:
        """Codebooks worth making: PersonaPlex's user codes would be thrown away."""
        # Moshi's 16 streams are 8 of its own and 8 of the user. PersonaPlex was trained to predict
        # all 16; the last 8 would only be overwritten by what the user really says.
        return self.num_codebooks // 2 if self.kind == "personaplex" else self.num_generated

    def lm(self, rewind_steps: int = 0) -> LMConfig:
        """Return what the language model is configured with.

        Args:
            rewind_steps: newest steps of a conversation that can be taken back. No weight depends
                on it, only the memory of a conversation.
        """
        stack, depth, num_made = self.backbone, self.depth, self.num_made
        return LMConfig(
            dim=stack.dim,
            num_layers=stack.num_layers,
            num_heads=stack.num_heads,
            num_kv_heads=stack.num_kv_heads,
            ff_dim=stack.ff_dim,
            text_vocab=self.text_card,
            num_codebooks=num_made,
            codebook_size=self.card,
            audio_rank=0,
            delays=self.delays[1 : 1 + num_made],
            rope_base=stack.rope_base,
            norm_eps=NORM_EPS,
            # All steps of a duplex model are of one kind, and share one ring.
            text_window=0,
            audio_window=stack.context,
            prefix_steps=0,
            rewind_steps=rewind_steps,
            family=Family(
                num_user_codebooks=self.num_codebooks - num_made,
                text_out=self.text_card_out,
                has_two_texts=self.has_two_texts,
                depth_sets=self.depth_sets[:num_made],
                depth_rank=self.depth_rank,
                has_depth_norms=self.has_depth_norms,
                conditioners=self.conditioners,
                cross_position_scale=self.cross_position_scale,
            ),
            **_depth_sizes(depth) if depth else {},
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> KyutaiConfig:
        """Read a parsed `config.json`.

        Args:
            values: as published. NVIDIA's file for PersonaPlex only says so; one without sizes at
                all is Moshi's.

        Raises:
            ConfigError: naming the key that is unknown, or the value that is not supported.
        """
        kind = str(values.get("model_type", "moshi"))
        if kind not in KINDS:
            raise ConfigError(f"model_type: expected one of {', '.join(KINDS)}, got {kind!r}")
        # NVIDIA's file names the model and no size, and Kyutai's folder has no file at all. What is
        # given on top of the known sizes still counts.
        if not values.keys() & {"dim", "num_layers"}:
            values = {**MOSHI_7B, **(PERSONAPLEX if kind == "personaplex" else {}), **values}
        unknown = sorted(values.keys() - _KNOWN)
        if unknown:
            raise ConfigError(f"unknown keys in the model configuration: {', '.join(unknown)}")
        # A key with a value that nothing here computes would give a model that runs and speaks
        # nonsense. So it is refused before a weight is read.
        for key, supported in _SUPPORTED.items():
            if key in values and values[key] not in supported:
                raise ConfigError(f"{key}: expected one of {supported}, got {values[key]!r}")
        try:
            return _read(kind, values)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"not a model configuration ({error!r})") from error


def _depth_sizes(depth: Stack) -> dict[str, int]:
    return {
        "depth_dim": depth.dim,
        "depth_layers": depth.num_layers,
        "depth_heads": depth.num_heads,
        "depth_ff": depth.ff_dim,
    }


NORM_EPS = 1e-8  # of "rms_norm_f32"
KINDS = ("moshi", "personaplex", "hibiki", "stt", "tts")

# Kyutai's repositories of Moshi carry no config.json: these sizes are meant.
MOSHI_7B: Mapping[str, Any] = {
    "dim": 4096,
    "text_card": 32_000,
    "existing_text_padding_id": 3,
    "n_q": 16,
    "dep_q": 8,
    "card": 2048,
    "num_heads": 32,
    "num_layers": 32,
    "hidden_scale": 4.125,
    "context": 3000,
    "max_period": 10_000,
    "positional_embedding": "rope",
    "depformer_dim": 1024,
    "depformer_dim_feedforward": 4224,
    "depformer_num_heads": 16,
    "depformer_num_layers": 6,
    # The delays are those of text, of the model's eight codebooks and of the user's eight. In each
    # group the semantic code comes at once and the acoustic ones a frame later.
    # Source: Défossez et al. 2024, "Moshi", section 3.4.4.
    "delays": [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1],
}
# PersonaPlex is Moshi that also makes, and throws away, the user's codes.
PERSONAPLEX: Mapping[str, Any] = {"dep_q": 16}

# What can only be one thing, and what may be left out for it.
_SUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "causal": (True,),
    "depformer_causal": (True,),
    "layer_scale": (None,),
    "depformer_layer_scale": (None,),
    "gating": ("silu",),
    "depformer_gating": ("silu",),
    "norm": ("rms_norm_f32",),
    "positional_embedding": ("rope", "rope_concat"),
    "depformer_pos_emb": ("none",),
    "depformer_norm": (None, "layer_norm"),
    "depformer_multi_linear": (True,),
    "depformer_weights_per_step": (True,),
    "depformer_kv_repeat": (1,),
    "existing_text_padding_id": (3,),
    "lora": (False, None),
    "quantize": (True, False),  # the file says of each tensor which type it has
}
_FILES = {
    "moshi_name": "lm", "mimi_name": "mimi", "mimi_config_name": "mimi_config",
    "tokenizer_name": "tokenizer",
}  # fmt: skip
_OPTIONS = ("lm_gen_config", "stt_config", "tts_config", "model_id", "version")
_KNOWN = (
    {
        "dim", "num_heads", "num_layers", "hidden_scale", "context", "max_period", "kv_repeat",
        "text_card", "text_card_out", "card", "n_q", "dep_q", "delays", "demux_second_stream",
        "depformer_dim", "depformer_dim_feedforward", "depformer_num_heads",
        "depformer_num_layers", "depformer_context", "depformer_max_period",
        "depformer_weights_per_step_schedule", "depformer_low_rank_embeddings",
        "conditioners", "fuser", "cross_attention", "extra_heads_num_heads", "extra_heads_dim",
        "model_type", "lora_name", "lora_rank", "lora_scaling",
    }
    | _SUPPORTED.keys()
    | _FILES.keys()
    | set(_OPTIONS)
)  # fmt: skip


def _local(name: str) -> str:
    """Return the name of a file in a checkpoint's folder, also of one that comes from another's.

    Those are given as "hf://owner/repository/name".
    """
    # "hf://kyutai/moshiko-pytorch-bf16/tokenizer.model" is the file tokenizer.model: a pull puts
    # all files of a checkpoint into one folder. Anything else with a folder in it could lead out of
    # the checkpoint's own.
    local = name.rpartition("/")[2] if name.startswith("hf://") else name
    if local != Path(local).name:
        raise ConfigError(f"expected the name of a file in the same folder, got {name!r}")
    return local


def gated_width(dim: int, feed_forward: int) -> int:
    """Return the hidden width of the gated MLP that a feed-forward width stands for."""
    # A gated MLP has three matrices in the place of two, so its width is two thirds of the plain
    # one's, for the same number of weights. Moshi: 4.125 * 4096 = 16,896, and 2/3 of it is 11,264.
    # In the depth transformer: 4,224 becomes 2,816. For exactly four times the width the original
    # code takes 21/8 of it.
    return 21 * dim // 8 if feed_forward == 4 * dim else 2 * feed_forward // 3


def _read(kind: str, values: Mapping[str, Any]) -> KyutaiConfig:
    dim, heads, scale = values["dim"], values["num_heads"], values["hidden_scale"]
    num_generated = values["dep_q"]
    backbone = Stack(
        dim=dim,
        num_layers=values["num_layers"],
        num_heads=heads,
        num_kv_heads=heads // values.get("kv_repeat", 1),
        ff_dim=gated_width(dim, int(scale * dim)),
        context=values["context"],
        rope_base=float(values["max_period"]),
        rope="halves" if values.get("positional_embedding") == "rope_concat" else "neighbours",
    )
    depth, sets = None, ()
    if num_generated:
        depth_dim = values["depformer_dim"]
        given = values.get("depformer_dim_feedforward") or int(scale * depth_dim)
        depth = Stack(
            dim=depth_dim,
            num_layers=values["depformer_num_layers"],
            num_heads=values["depformer_num_heads"],
            num_kv_heads=values["depformer_num_heads"],
            ff_dim=gated_width(depth_dim, given),
            context=num_generated,
            rope=None,
        )
        # A schedule of [0, 1, 2, 3, 3, 3] has four sets of weights for six codebooks: the finest
        # codes share one. Without a schedule each codebook has its own.
        schedule = values.get("depformer_weights_per_step_schedule") or range(num_generated)
        sets = tuple(schedule)
    delays = tuple(values["delays"])
    # Moshi: text and 16 codebooks are 17 delays, and 8 generated codebooks have 8 sets of weights.
    if len(delays) != 1 + values["n_q"] or (depth and len(sets) != num_generated):
        raise ConfigError(
            f"expected {1 + values['n_q']} delays and a weight set for each of {num_generated} "
            f"codebooks, got {len(delays)} and {len(sets)}"
        )
    conditioners, position_scale = _conditioners(values)
    return KyutaiConfig(
        kind=kind,
        backbone=backbone,
        depth=depth,
        depth_sets=sets,
        depth_rank=values.get("depformer_low_rank_embeddings"),
        has_depth_norms=values.get("depformer_norm") == "layer_norm",
        text_card=values["text_card"],
        text_card_out=values.get("text_card_out") or values["text_card"],
        card=values["card"],
        num_codebooks=values["n_q"],
        num_generated=num_generated,
        delays=delays,
        has_two_texts=bool(values.get("demux_second_stream")),
        conditioners=conditioners,
        cross_position_scale=position_scale,
        num_extra_heads=values.get("extra_heads_num_heads", 0),
        files={what: _local(values[key]) for key, what in _FILES.items() if values.get(key)},
        options={key: values[key] for key in _OPTIONS if key in values},
    )


def _conditioners(values: Mapping[str, Any]) -> tuple[dict[str, Conditioner], float | None]:
    """Read what the model is told, and the scale of positions in what is attended to."""
    fuser: Mapping[str, Any] = values.get("fuser") or {}
    sums: Sequence[str] = fuser.get("sum", ())
    crosses: Sequence[str] = fuser.get("cross", ())
    found: dict[str, Conditioner] = {}
    for name, given in (values.get("conditioners") or {}).items():
        # A condition that is summed and attended to would be two; one that is neither would be
        # ignored. Steps put in front of the conversation ("prepend") are what nothing here does.
        if (name in sums) == (name in crosses) or fuser.get("prepend"):
            raise ConfigError(f"fuser: expected {name} to be either summed or attended to")
        how: Literal["sum", "cross"] = "sum" if name in sums else "cross"
        table = given[given["type"]]
        if given["type"] == "tensor":
            found[name] = Conditioner(dim=table["dim"], how=how)
        elif given["type"] == "lut":
            said = tuple(table["possible_values"])
            # One row more than the bins, as the checkpoints have it.
            # Bins are the values that can be said, and one row more stands for none. Hibiki has 31
            # bins for five values, so most rows are never used.
            rows = table["n_bins"] + 1
            found[name] = Conditioner(dim=table["dim"], values=said, num_rows=rows, how=how)
        else:
            raise ConfigError(f"conditioners: {name}: unknown type {given['type']!r}")
    if values.get("cross_attention", False) != bool(crosses):
        raise ConfigError(f"cross_attention: expected {bool(crosses)}, as the fuser has it")
    if not fuser.get("cross_attention_pos_emb"):
        return found, None
    return found, float(fuser.get("cross_attention_pos_emb_scale", 1.0))
