"""The conversations of an evaluation."""

from model.training.evaluation.conditions import CONDITIONS, STRANGERS, draw_cases


def test_cases_depend_on_the_seed_alone() -> None:
    """Fewer conversations are a prefix of more; another seed gives others."""
    assert draw_cases(20, 5, ("one", "two")) == draw_cases(40, 5, ("one", "two"))[:20]
    assert draw_cases(20, 5, ("one",)) != draw_cases(20, 6, ("one",))


def test_every_voice_answers() -> None:
    """The assistant's voices share the conversations evenly."""
    voices = [case.voice for case in draw_cases(10, 0, ("one", "two"))]
    assert voices.count("one") == voices.count("two") == 5


def test_conditions_cover_voices_noise_and_typing() -> None:
    """Known voices and strangers are heard clean and at 10 dB, and text is typed."""
    assert {(c.voices, c.snr_db) for c in CONDITIONS} == {
        ("known", None),
        ("known", 10.0),
        ("held out", None),
        ("held out", 10.0),
        ("neural", None),
        ("neural", 10.0),
        ("joe", None),
        (None, None),
    }
    assert len({c.name for c in CONDITIONS}) == len(CONDITIONS)


def test_pictures_are_shown_to_those_who_see() -> None:
    """The others are never asked about any."""
    skills = {
        sees: {
            turn.skill
            for case in draw_cases(150, 0, ("one",), is_taught=True, sees=sees)
            for turn in case.dialogue
            if turn.picture
        }
        for sees in (True, False)
    }
    assert skills == {True: {"pictures"}, False: set()}


def test_strangers_are_those_whom_training_never_heard() -> None:
    """Clean, and no voice of training among them."""
    assert len(STRANGERS) == 3
    chosen = [c for c in CONDITIONS if c.name in STRANGERS]
    assert all(c.voices not in (None, "known") and c.snr_db is None for c in chosen)
