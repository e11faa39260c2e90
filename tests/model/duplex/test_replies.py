"""What a model says by itself becomes responses, from where it begins to where it falls silent."""

from __future__ import annotations

import numpy as np

from model.duplex.replies import DuplexReplies
from model.duplex.talk import Frame, TalkRules
from model.messages import (
    Output,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    ResponseText,
    ResponseWord,
)
from model.pieces import PAD
from tests.fakes.duplex import PIECES

RULES = TalkRules(quiet_frames=2)
SILENCE = np.zeros(4, dtype=np.float32)
LOUD = np.full(4, 0.2, dtype=np.float32)


class Stage:
    """Replies, and the frames so far."""

    def __init__(self, answer_frames: int = 3) -> None:
        self.replies = DuplexReplies("s", PIECES, RULES, 80, answer_frames)
        self.num_frames = 0

    def offer(self, turn: int = 1, **fields: bool | int) -> list[Output]:
        """Ask for a response, standing unless said otherwise."""
        fields = {"is_standing": True, **fields}
        request = Respond("s", turn, f"item_{turn}", **fields)  # type: ignore[arg-type]  # short
        return self.replies.respond(request, num_waiting=0)

    def say(self, piece: int = PAD, *, pcm: np.ndarray = SILENCE) -> list[Output]:
        """Make a frame."""
        frame = Frame(self.num_frames, piece, bool(PIECES.spelling(piece)), pcm)
        self.num_frames += 1
        outputs, is_cut = self.replies.frame(frame)
        assert not is_cut
        return outputs

    def words(self, text: str) -> list[Output]:
        """Make a frame a piece."""
        return [output for piece in PIECES.encode(text) for output in self.say(piece)]


def text_of(outputs: list[Output]) -> str:
    """Return the words written."""
    return "".join(output.text for output in outputs if isinstance(output, ResponseText))


def test_a_response_from_the_first_word_to_the_silence() -> None:
    """Words, where they begin in the sound, every frame of sound, and what it took."""
    stage = Stage()
    stage.offer()
    assert not stage.say()
    outputs = [*stage.words("the dog"), *stage.say(), *stage.say()]
    assert text_of(outputs) == "the dog"
    num_pieces = len(PIECES.encode("the dog"))
    first = len(PIECES.encode("the"))
    words = [(o.text, o.start_ms) for o in outputs if isinstance(o, ResponseWord)]
    assert words == [("the", 0), ("dog", 80 * first)]
    assert sum(isinstance(o, ResponseAudio) for o in outputs) == num_pieces + 2
    done = outputs[-1]
    assert isinstance(done, ResponseDone)
    assert (done.turn, done.reason) == (1, "completed")
    assert done.usage.output_text_tokens == num_pieces
    assert done.usage.output_audio_tokens == num_pieces + 2
    assert stage.replies.spoken is not None
    assert stage.replies.spoken.first_call == 1


def test_sound_without_words() -> None:
    """Is a response too, from where it became loud."""
    stage = Stage()
    stage.offer()
    outputs = [output for _ in range(4) for output in stage.say(pcm=LOUD)]
    assert [type(output) for output in outputs] == [ResponseStarted, *[ResponseAudio] * 4]


def test_talk_waits_for_whoever_asks() -> None:
    """Two responses were said before anyone asked; each request gets one, whole."""
    stage = Stage()
    for _ in range(2):
        assert not stage.words("the dog")
        assert not [*stage.say(), *stage.say()]
    first, second = stage.offer(1), stage.offer(2)
    for turn, outputs in ((1, first), (2, second)):
        assert text_of(outputs) == "the dog"
        assert isinstance(outputs[-1], ResponseDone)
        assert {output.turn for output in outputs} == {turn}


def test_a_wish_that_is_not_met_ends() -> None:
    """After a while, empty; a standing one goes on standing."""
    stage = Stage(answer_frames=3)
    stage.offer()
    assert not [output for _ in range(9) for output in stage.say()]
    stage.offer(is_standing=False)
    assert not [output for _ in range(3) for output in stage.say()]
    (done,) = stage.say()
    assert isinstance(done, ResponseDone)
    assert (done.reason, done.usage.output_tokens) == ("completed", 0)
    assert not stage.replies.is_busy
    # A word within that time is the answer, and no longer ends by patience.
    stage.offer(2, is_standing=False)
    outputs = [*stage.say(), *stage.words("the dog"), *stage.words("the dog")]
    assert text_of(outputs) == "the dog the dog"
    assert not any(isinstance(output, ResponseDone) for output in outputs)


def test_one_more_request_for_the_same_turn() -> None:
    """Changes what is asked for before it begins, and nothing afterwards."""
    stage = Stage()
    stage.offer()
    stage.offer(audio=False)
    outputs = stage.words("the")
    assert not any(isinstance(output, ResponseAudio) for output in outputs)
    assert not stage.offer()
    assert not any(isinstance(output, ResponseAudio) for output in stage.words("dog"))


def test_cancelled() -> None:
    """Once, in the middle of a word or before any; what is left of it is not heard."""
    stage = Stage()
    stage.offer()
    stage.words("the")
    outputs, was_talking = stage.replies.cancel(1)
    assert was_talking
    assert isinstance(outputs[-1], ResponseDone)
    assert outputs[-1].reason == "cancelled"
    assert stage.replies.cancel(1) == ([], False)
    stage.offer(2)
    (done,), was_talking = stage.replies.cancel(2)
    assert isinstance(done, ResponseDone)
    assert not was_talking


def test_a_limit_ends_it() -> None:
    """Pieces and frames together, and the model is to be silent."""
    stage = Stage()
    stage.offer(max_output_tokens=4)
    the, dog = PIECES.encode("the"), PIECES.encode("dog")
    frames = [Frame(i, piece, True, LOUD) for i, piece in enumerate([*the, *dog])]
    told = [stage.replies.frame(frame) for frame in frames]
    outputs = [output for made, _ in told for output in made]
    done = next(output for output in outputs if isinstance(output, ResponseDone))
    assert done.reason == "max_output_tokens"
    assert done.usage.output_tokens == 4
    assert [is_cut for _, is_cut in told].index(True) == 1


def test_what_was_paid_is_not_paid_again() -> None:
    """The input of a response is everything before it; what an earlier one had, is cached."""
    stage = Stage()
    account = stage.replies.account
    account.text, account.audio = 10, 20
    stage.offer()
    first = [*stage.words("the dog"), *stage.say(), *stage.say()][-1]
    account.audio += 5
    stage.offer(2)
    second = [*stage.words("the dog"), *stage.say(), *stage.say()][-1]
    assert isinstance(first, ResponseDone)
    assert isinstance(second, ResponseDone)
    usage, num = first.usage, len(PIECES.encode("the dog"))
    assert (usage.input_text_tokens, usage.input_audio_tokens) == (10, 20)
    assert usage.input_cached_tokens == 0
    usage = second.usage
    assert (usage.input_text_tokens, usage.input_audio_tokens) == (10 + num, 20 + num + 2 + 5)
    assert (usage.input_cached_text_tokens, usage.input_cached_audio_tokens) == (
        10 + num,
        20 + num + 2,
    )
