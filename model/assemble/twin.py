"""Random stand-ins for the duplex models: everything of the real ones but what they have learned.

A twin has the parts of a checkpoint of its kind, a few thousand times smaller, with weights made
from a seed when the server starts. So a whole server runs on a laptop, and in tests, without a
download. What it says means nothing: its sound is noise, and since random weights do not know when
to talk either, a twin follows simple manners instead. After the user has spoken and fallen silent
it talks for a few seconds, in words that say what it is, and it stops when it is interrupted. Its
weights choose the codes of that noise and nothing else; while it is silent it is made to be.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import sentencepiece
import torch

from model.arrays import Ints
from model.assemble.kyutai import Driven, Voices, make_parts, silence_of, sound_of
from model.codec.mimi import Mimi, MimiConfig
from model.duplex.engine import DuplexParts
from model.duplex.prompt import Tones, Voice
from model.family import ServedKind
from model.kyutai.config import KyutaiConfig
from model.kyutai.memory import REACH_FRAMES
from model.messages import Pcm
from model.pieces import PAD, TextPieces
from model.sampling import Sampling
from model.transformer.depth import UNDECIDED
from model.transformer.lm import LM

NOTE = "A random stand-in: it has learned nothing, and speaks noise."
WORDS = "i am a random twin of this model and all that i speak is noise"

_MIMI = MimiConfig(
    filters=4, dim=32, num_layers=1, num_heads=2, ff_dim=64, window=12, codebook_size=64,
    codebook_dim=16, num_codebooks=8,
)  # fmt: skip
# Everything that shapes a conversation is as in the real model: 16 streams, their delays, frames of
# 80 ms. What costs time is small. So tests of the engine with a twin hold for the real one.
_LM: Mapping[str, Any] = {
    "dim": 64,
    "num_heads": 4,
    "num_layers": 2,
    "hidden_scale": 4.125,
    "context": 250,  # 20 s
    "max_period": 10_000,
    "card": _MIMI.codebook_size,
    "n_q": 16,
    "dep_q": 8,
    "delays": [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1],
    "depformer_dim": 32,
    "depformer_num_heads": 2,
    "depformer_num_layers": 1,
}
_OWN: Mapping[ServedKind, Mapping[str, Any]] = {
    "moshi": {},
    "personaplex": {"dep_q": 16},
    "hibiki": {
        "delays": [0, 0, 2, 2, 2, 2, 2, 2, 2, 0, 2, 2, 2, 2, 2, 2, 2],
        "depformer_low_rank_embeddings": 8,
        "depformer_weights_per_step_schedule": [0, 1, 2, 3, 4, 4, 4, 4],
        "conditioners": {
            "description": {
                "type": "lut",
                "lut": {
                    "n_bins": 31,
                    "dim": 16,
                    "tokenizer": "noop",
                    "possible_values": ["very_bad", "bad", "neutral", "good", "very_good"],
                },
            }
        },
        "fuser": {"sum": ["description"]},
    },
}
_SAMPLING = Sampling(temperature=0.8, top_k=25)
_VOICES = ("robin", "wren")
_VOICE_FRAMES = 6
_SPEECH_LEVEL = 0.1  # root mean square, -20 dBFS

# A frame of the user counts as sound above -40 dBFS.
_LOUD = 0.01
_LOUD_FRAMES = 3  # with which the user speaks, or interrupts
_QUIET_FRAMES = 4  # after which the user has finished
_PIECE_FRAMES = 3  # from one piece of text to the next


class TwinManner:
    """Talk after the user has, and stop when the user talks again.

    Args:
        words: pieces that are said each time.
        silence: int64 [K], codes of silence.
    """

    def __init__(self, words: list[int], silence: Ints) -> None:
        self._silent = np.concatenate(([PAD], silence))
        # "i am" becomes i, pad, pad, am, pad, pad: a word every 240 ms, about as fast as people
        # speak.
        self._text = [piece for word in words for piece in (word, *[PAD] * (_PIECE_FRAMES - 1))]
        self._next: int | None = None  # frame of the talk; None while silent
        self._num_loud = self._num_quiet = 0
        self._is_asked = False

    def forced(self, heard: Pcm) -> Ints:
        """Return what the next frame must be; see `model.duplex.program.Manner`."""
        self._listen(heard)
        if self._next is None:
            return self._silent
        piece = self._text[self._next]
        self._next = self._next + 1 if self._next + 1 < len(self._text) else None
        frame = np.full_like(self._silent, UNDECIDED)
        frame[0] = piece
        return frame

    def hush(self) -> None:
        """Stop talking."""
        self._next = None

    def _listen(self, heard: Pcm) -> None:
        is_loud = float(np.sqrt(np.mean(np.square(heard)))) > _LOUD
        self._num_loud = self._num_loud + 1 if is_loud else 0
        self._num_quiet = 0 if is_loud else self._num_quiet + 1
        # Three loud frames are speech, so the twin stops and remembers that it was asked something.
        # Four quiet ones after that, 320 ms, and it answers.
        if self._num_loud >= _LOUD_FRAMES:
            self._next, self._is_asked = None, True
        if self._is_asked and self._num_quiet >= _QUIET_FRAMES:
            self._next, self._is_asked = 0, False


def make_twin(kind: ServedKind, seed: int, name: str, *, guidance: float = 1.0) -> DuplexParts:
    """Make a random model, ready to be served.

    Args:
        kind: of which model.
        seed: of its weights; the same seed makes the same twin.
        name: what the engine calls it.
        guidance: as `model.assemble.kyutai.make_parts`.
    """
    pieces = TextPieces(_train_pieces(), "text pieces of the twin")
    config = KyutaiConfig.from_dict(
        # The names that a sentencepiece file has decide how many pieces there are; the model is
        # made to fit them.
        {**_LM, **_OWN[kind], "model_type": kind, "text_card": len(pieces)}
    )
    # The weights come from a seed of their own, and whoever drew random numbers before goes on with
    # theirs as if nothing had been drawn.
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        lm = LM(config.lm(REACH_FRAMES)).eval().requires_grad_(requires_grad=False)
        mimi = _make_mimi()
    silence, sine = silence_of(mimi), sound_of(mimi)
    tones = Tones(silence[: config.num_made], sine[: config.num_codebooks - config.num_made])
    words = pieces.encode(WORDS)
    voices = Voices(lambda _name: None, (kind,))
    if kind == "personaplex":
        voices = Voices(_make_voice, _VOICES)
    return make_parts(
        Driven(config, lm, mimi, pieces, tones, voices),
        name,
        guidance=guidance,
        sampling=(_SAMPLING, _SAMPLING),
        note=NOTE,
        make_manner=lambda: TwinManner(words, tones.silence),
    )


def _make_mimi() -> Mimi:
    """Make a codec whose silence is silent: code 0 of every codebook stands for it."""
    mimi = Mimi(_MIMI).eval().requires_grad_(requires_grad=False)
    for name, parameter in mimi.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
    for half in (mimi.codes.semantic, mimi.codes.acoustic):
        # The entry of zeros is the nearest one to a latent of zeros, which is what silence gives
        # without biases. So silence has the code 0 in every codebook, and code 0 is silent.
        half.tables[:, 0] = 0.0
    mimi.codes.prepare()
    # As loud as speech: without biases the sound grows with the last weights.
    codes = torch.randint(1, _MIMI.codebook_size, (1, 25, _MIMI.num_codebooks))
    out = mimi.decoder.synthesis.out.linear
    # Without biases the whole path is scaled by its last weights: half of them, half as loud.
    out.weight.mul_(_SPEECH_LEVEL / mimi.decode(codes).square().mean().sqrt())
    return mimi


def _make_voice(name: str) -> Voice:
    """Return the codes of a short recording that nobody has made."""
    noise = np.random.default_rng(_VOICES.index(name))
    return Voice(codes=noise.integers(_MIMI.codebook_size, size=(_VOICE_FRAMES, 8)))


def _train_pieces() -> bytes:
    """Make a few text pieces, in the form that the real ones have."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS, "abcdefghijklmnopqrstuvwxyz <system>"]),
        model_writer=file,
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=PAD,
        user_defined_symbols=[f"\u2581{word}" for word in dict.fromkeys(WORDS.split())],
        num_threads=1,
        minloglevel=2,
    )
    return file.getvalue()
