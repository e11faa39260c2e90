"""What was heard of a reply is what is left of it."""

import pytest

from model.messages import num_words_heard
from server.protocol.items.items import AudioPart, Message, Word, truncated, with_heard_ms

WORDS = (Word("one", 0), Word("two", 400), Word("three", 800))  # at twice the speed: 0, 200, 400
SPOKEN = Message(
    "a",
    "assistant",
    "incomplete",
    (AudioPart("output_audio", "one two three four", 600, WORDS, speed=2.0),),
)


def test_a_truncated_item_ends_where_it_was_heard() -> None:
    """A word that had begun was heard; one that begins at the cut was not."""
    part = truncated(SPOKEN, 200).output_audio
    assert part == AudioPart("output_audio", "one", 200, WORDS[:1], speed=2.0)
    part = truncated(SPOKEN, 201).output_audio
    assert part is not None
    assert part.transcript == "one two"
    assert truncated(SPOKEN, 0).words == ""


def test_unheard_words_are_not_remembered_though_clients_were_sent_them() -> None:
    """Until a client truncates, it sees what it was sent; the model remembers what was heard."""
    heard = with_heard_ms(SPOKEN, 300)
    assert heard.words == "one two"
    assert heard.output_audio is not None
    assert heard.output_audio.transcript == "one two three four"
    assert SPOKEN.words == "one two three four"
    # A client that says how much it heard knows best.
    assert truncated(heard, 500).words == "one two three"


def test_no_transcript_is_invented() -> None:
    """Where the engine did not say when words begin, nothing is left of a cut transcript."""
    silent = Message("a", "assistant", "completed", (AudioPart("output_audio", "one two", 500),))
    assert truncated(silent, 300).words == ""


def test_played_faster_a_moment_lies_later_in_what_was_made() -> None:
    """Clients count what they play; the engine counts what it made."""
    part = SPOKEN.output_audio
    assert part is not None
    assert part.model_ms(300) == 600


@pytest.mark.parametrize("speed", [0.25, 0.7, 1.0, 1.4, 1.5])
def test_clients_and_the_model_know_the_same_words(speed: float) -> None:
    """Speeds do not divide milliseconds evenly; the word is heard on both sides or on neither."""
    starts_ms = range(0, 400, 9)
    words = tuple(Word(str(start_ms), start_ms) for start_ms in starts_ms)
    part = AudioPart("output_audio", "", 2_000, words, speed=speed)
    for heard_ms in range(600):
        remembered = num_words_heard(starts_ms, part.model_ms(heard_ms))
        assert len(part.words_before(heard_ms).split()) == remembered
