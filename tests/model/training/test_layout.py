"""Dialogues are laid out as the serving side will ask for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.cache.state import Kind
from model.text import Special
from model.training.encode_stage import CodedClip
from model.training.layout import (
    NO_TARGET,
    SpokenCall,
    SpokenTurn,
    aligned_words,
    lay_out,
    live_transcript,
)


class Letters:
    """A tokenizer with one piece a letter: a is 100."""

    def encode(self, text: str) -> list[int]:
        """Spell `text`, spaces left out."""
        return [100 + ord(c) - ord("a") for c in text if c != " "]


A, B, C, D = range(100, 104)
PIECES = Letters()


def clip(frames: int, *words: tuple[str, float, float]) -> CodedClip:
    """Make codes that count up: frame f, book k is 10 f + k."""
    codes = 10 * np.arange(frames)[:, None] + np.arange(4)[None]
    return CodedClip(codes.astype(np.int16), words)


def test_live_transcript_follows_the_words() -> None:
    """A word's pieces come two frames after its end, one a frame; the end of turn after a pause."""
    heard = clip(14, ("ab", 0.1, 0.30), ("c", 0.3, 0.42))
    due = live_transcript(heard.codes, heard.words, PIECES)
    assert due[5:8] == [A, B, C]
    assert due[10] == Special.END
    assert {d for i, d in enumerate(due) if i not in (5, 6, 7, 10)} == {Special.PAD}


def test_what_comes_too_late_is_left_out() -> None:
    """A turn cut right after its last word has no live piece for it, and no end."""
    heard = clip(6, ("a", 0.0, 0.1), ("b", 0.1, 0.45))
    due = live_transcript(heard.codes, heard.words, PIECES)
    assert due == [Special.PAD] * 3 + [A] + [Special.PAD] * 2


def test_words_lead_their_audio() -> None:
    """A word is due two frames before it sounds; the step after the last frame says the end."""
    said = aligned_words(clip(8, ("a", 0.04, 0.2), ("b", 0.40, 0.6)), PIECES)
    assert said == [A, 0, 0, B, 0, 0, 0, 0, Special.EOS]


def test_whole_exchange() -> None:
    """Listening, transcript, reply text, reply audio and end, each step answering for the next."""
    turn = SpokenTurn("ab", "c", clip(3), clip(2, ("c", 0.0, 0.1)))
    rows = lay_out([turn], 1, PIECES, 4, [7])
    assert rows.text == [
        Special.BOS, Special.VOICE0 + 1, 0, 0, 0, Special.USER, A, B, Special.REPLY, C,
        Special.SPEAK, C, 0, Special.EOS,
    ]  # fmt: skip
    assert rows.kind == [Kind.PREFIX] * 2 + [Kind.LISTEN] * 3 + [Kind.TEXT] * 5 + [
        Kind.SPEAK
    ] * 3 + [Kind.TEXT]
    assert rows.target[5:13] == [A, B, Special.REPLY, C, Special.SPEAK, C, 0, Special.EOS]
    assert rows.target[13] == NO_TARGET
    assert rows.jumps[2] == 7


def test_acoustic_codes_come_one_step_late_and_are_fed_back() -> None:
    """Step s asks for the semantic code of frame s and the acoustic codes of frame s - 1.

    It feeds what step s - 1 asked for.
    """
    rows = lay_out([SpokenTurn("a", "b", None, clip(2, ("b", 0.0, 0.1)))], 0, PIECES, 4, [0])
    asked = [c.tolist() for c in rows.codes if c is not None]
    assert asked == [[0, -1, -1, -1], [10, 1, 2, 3], [-1, 11, 12, 13]]
    fed = [c.tolist() for c in rows.assistant if c is not None]
    assert fed == asked[:2]


def test_every_piece_asked_for_is_the_next_piece_fed() -> None:
    """Within listening, bursts and speech the target of a step is the text of the following one."""
    heard = clip(12, ("ab", 0.0, 0.3), ("c", 0.3, 0.4))
    rows = lay_out([SpokenTurn("abc", "ca", heard, clip(6, ("ca", 0.1, 0.3)))], 0, PIECES, 4, [0])
    for i in range(2, len(rows) - 1):
        ends_listening = rows.kind[i] == Kind.LISTEN != rows.kind[i + 1]
        if not ends_listening:
            assert rows.target[i] == rows.text[i + 1], i


def test_misheard_words_come_back_as_input_and_are_answered_with_the_right_ones() -> None:
    """A wrong word, or none, is what the next step is fed; what is asked for stays the same."""
    heard = clip(12, ("ab", 0.0, 0.3), ("c", 0.3, 0.4))
    right = SpokenTurn("abc", None, heard, None)
    wrong = SpokenTurn("abc", None, heard, None, (("d", 0.0, 0.3), ("", 0.3, 0.4)))
    rows = lay_out([wrong], 0, PIECES, 4, [0])
    assert rows.target == lay_out([right], 0, PIECES, 4, [0]).target
    fed = [text for text, kind in zip(rows.text, rows.kind, strict=True) if kind == Kind.LISTEN]
    assert fed == [0, 0, 0, 0, 0, 0, D, 0, 0, 0, 0, Special.END]


def test_typed_turn_looks_like_a_transcript() -> None:
    """Without audio the question's steps are the same text steps."""
    spoken = lay_out([SpokenTurn("ab", "c", clip(3), None)], 0, PIECES, 4, [0])
    typed = lay_out([SpokenTurn("ab", "c", None, None)], 0, PIECES, 4, [0])
    assert typed.text[2:] == spoken.text[5:]
    assert typed.target[2:] == spoken.target[5:]


def test_recording_without_alignment_teaches_only_the_transcript() -> None:
    """Nothing is asked while it is heard, and nothing after the transcript."""
    rows = lay_out([SpokenTurn("ab", None, clip(4), None)], 0, PIECES, 4, [0])
    assert rows.target[2:6] == [NO_TARGET] * 4
    assert rows.target[6:] == [A, B, Special.REPLY]


def test_prompt_is_pinned() -> None:
    """Instructions and functions follow the voice, and are remembered for good."""
    rows = lay_out([SpokenTurn("a", "b", None, None)], 1, PIECES, 4, [0], [Special.SYSTEM, D])
    assert rows.text[:4] == [Special.BOS, Special.VOICE0 + 1, Special.SYSTEM, D]
    assert rows.kind[:5] == [Kind.PREFIX] * 4 + [Kind.TEXT]


def test_call_is_made_and_its_result_answered() -> None:
    """First words, the call, their audio; then the result is read and the reply made."""
    call = SpokenCall([Special.CALL, A, Special.SPEAK], "d", "c", clip(2, ("c", 0.0, 0.1)))
    rows = lay_out([SpokenTurn("a", "b", None, None, calls=[call])], 0, PIECES, 4, [0])
    assert rows.text[2:] == [
        Special.USER, A, Special.REPLY, C, Special.CALL, A, Special.SPEAK,
        Special.SPEAK, C, 0, Special.EOS, Special.RESULT, D, Special.REPLY, B, Special.EOS,
    ]  # fmt: skip
    assert rows.kind[9:12] == [Kind.SPEAK] * 3
    assert rows.target[4:9] == [C, Special.CALL, A, Special.SPEAK, NO_TARGET]
    assert rows.target[12:16] == [NO_TARGET] * 3 + [B]


def test_what_is_not_understood() -> None:
    """No words live, none in the transcript, `<unsure>` in the place of `<reply>`."""
    rows = lay_out([SpokenTurn("", "c", clip(3), None, is_unsure=True)], 0, PIECES, 4, [0])
    assert rows.target[2:5] == [Special.PAD] * 3
    assert rows.text[5:] == [Special.USER, Special.UNSURE, Special.REPLY, C, Special.EOS]
    assert rows.target[5:8] == [Special.UNSURE, Special.REPLY, C]
    assert rows.ends == [-1] * len(rows)


def test_doubtful_words_are_fed_and_not_taught() -> None:
    """After wrong words that are not relied on the reply is the same as after none."""
    rows = lay_out([SpokenTurn("ab", "c", None, None, is_unsure=True)], 0, PIECES, 4, [0])
    assert rows.text[2:7] == [Special.USER, A, B, Special.UNSURE, Special.REPLY]
    assert rows.target[2:7] == [NO_TARGET] * 3 + [Special.REPLY, C]


def test_assistant_begins() -> None:
    """Where nobody said anything, the reply comes first."""
    rows = lay_out([SpokenTurn(None, "c", None, None)], 0, PIECES, 4, [0])
    assert rows.text[2:] == [Special.REPLY, C, Special.EOS]


def test_picture_comes_before_the_question_or_after_its_words() -> None:
    """One step a patch, nothing asked of it."""
    patches = np.zeros((4, 12), np.float32)
    shown = SpokenTurn("a", "b", None, None, picture=lambda: patches, num_patches=4)
    rows = lay_out([shown], 0, PIECES, 4, [0])
    assert rows.text[2:8] == [Special.IMAGE] * 4 + [Special.USER, A]
    assert rows.target[2:6] == [NO_TARGET] * 4
    assert rows.pictures == [patches]
    shown_last = replace(shown, is_shown_last=True)
    rows = lay_out([shown_last], 0, PIECES, 4, [0])
    assert rows.text[2:9] == [Special.USER, A, *[Special.IMAGE] * 4, Special.REPLY]
    assert rows.target[3:7] == [Special.REPLY, *[NO_TARGET] * 3]


def test_end_is_known_at_every_frame() -> None:
    """Frames that begin after the last word are over; pauses before it are not."""
    heard = clip(12, ("a", 0.0, 0.1), ("b", 0.5, 0.62))
    rows = lay_out([SpokenTurn("ab", "c", heard, None)], 0, PIECES, 4, [0])
    assert rows.ends[2:14] == [0] * 8 + [1] * 4
    assert set(rows.ends[14:]) == {-1}
