"""The conversations of an evaluation."""

from model.training.evaluation.conditions import CONDITIONS, draw_cases


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
