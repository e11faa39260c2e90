"""A small file of text pieces, of the form that checkpoints of the Kyutai family have."""

import functools
import io

import sentencepiece

_TEXT = ["the quick brown fox jumps over the lazy dog", "hello there, how are you?"]


@functools.cache
def make_pieces(*, has_bytes: bool = True) -> bytes:
    """Return a sentencepiece file: unknown 0, two control pieces, padding 3, bytes, text."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT * 3),
        model_writer=file,
        vocab_size=300,
        hard_vocab_limit=False,
        byte_fallback=has_bytes,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        minloglevel=2,
    )
    return file.getvalue()
