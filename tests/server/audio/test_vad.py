"""Where turns begin and end, from probabilities alone."""

from dataclasses import replace

from server.audio.vad import (
    WINDOW_MS,
    Boundary,
    Echo,
    InterruptionDismissed,
    InterruptionRules,
    InterruptionSuspected,
    SpeechEnd,
    SpeechPause,
    SpeechResumption,
    SpeechSegmenter,
    SpeechStart,
    VadRules,
    Window,
)

INTERRUPTION = InterruptionRules(speech_ms=384, silence_ms=192, quieter_db=12.0)
RULES = VadRules(threshold=0.5, prefix_padding_ms=300, silence_duration_ms=200, min_speech_ms=64)


def _boundaries(segmenter: SpeechSegmenter, probabilities: list[float]) -> list[Boundary]:
    found = (segmenter.feed(Window(probability)) for probability in probabilities)
    return [boundary for boundary in found if boundary is not None]


def test_a_turn_has_padding_before_and_silence_after() -> None:
    """audio_start_ms is the onset less the padding; audio_end_ms includes the silence."""
    probabilities = [0.0] * 20 + [0.9] * 10 + [0.0] * 20
    start, end = _boundaries(SpeechSegmenter(RULES), probabilities)
    assert start == SpeechStart(start_ms=20 * WINDOW_MS - 300, at_ms=22 * WINDOW_MS)
    # 200 ms of silence are seven windows of 32 ms.
    assert end == SpeechEnd(at_ms=37 * WINDOW_MS)


def test_padding_does_not_reach_before_the_stream() -> None:
    """Padding is cut at the first sample."""
    (start,) = _boundaries(SpeechSegmenter(RULES), [0.9] * 3)
    assert start == SpeechStart(0, 2 * WINDOW_MS)


def test_padding_does_not_reach_into_the_previous_turn() -> None:
    """Audio belongs to one turn only."""
    probabilities = [0.9] * 5 + [0.0] * 7 + [0.9] * 5
    boundaries = _boundaries(SpeechSegmenter(RULES), probabilities)
    assert boundaries[1] == SpeechEnd(12 * WINDOW_MS)
    assert boundaries[2] == SpeechStart(12 * WINDOW_MS, 14 * WINDOW_MS)


def test_a_click_is_not_speech() -> None:
    """One loud window alone begins nothing, however often it comes."""
    assert not _boundaries(SpeechSegmenter(RULES), [0.9, 0.0] * 20)


def test_hysteresis_keeps_a_quiet_voice_speaking() -> None:
    """Under the threshold, but not clearly under it, speech goes on."""
    segmenter = SpeechSegmenter(RULES)
    assert len(_boundaries(segmenter, [0.9] * 2 + [0.4] * 50)) == 1
    assert _boundaries(segmenter, [0.0] * 10) == [SpeechEnd(59 * WINDOW_MS)]


def test_hysteresis_does_not_revive_a_pause() -> None:
    """Once silence has begun, windows between the thresholds count as silence."""
    boundaries = _boundaries(SpeechSegmenter(RULES), [0.9] * 2 + [0.1] + [0.4] * 6)
    assert boundaries[-1] == SpeechEnd(9 * WINDOW_MS)


def test_speech_starts_the_silence_anew() -> None:
    """A pause shorter than the silence that ends a turn does not end it."""
    probabilities = [0.9] * 2 + ([0.0] * 6 + [0.9]) * 5
    assert len(_boundaries(SpeechSegmenter(RULES), probabilities)) == 1


def test_an_earlier_end_can_be_asked_for() -> None:
    """A semantic end of turn shortens the silence, unless the user speaks on."""
    patient = replace(RULES, silence_duration_ms=4_000, finished_ms=96)
    segmenter = SpeechSegmenter(patient)
    _boundaries(segmenter, [0.9] * 4 + [0.0] * 2)
    segmenter.sounds_finished(is_finished=True)
    assert _boundaries(segmenter, [0.0]) == [SpeechEnd(7 * WINDOW_MS)]
    _boundaries(segmenter, [0.9] * 4)
    segmenter.sounds_finished(is_finished=True)
    assert not _boundaries(segmenter, [0.9] * 14 + [0.0] * 20)


def test_the_tail_of_a_voice_does_not_take_back_its_end() -> None:
    """Probabilities fall some windows after the voice: that is not speaking on."""
    segmenter = SpeechSegmenter(replace(RULES, silence_duration_ms=4_000, finished_ms=96))
    _boundaries(segmenter, [0.9] * 10)
    segmenter.sounds_finished(is_finished=True)
    assert _boundaries(segmenter, [0.9] * 4 + [0.0] * 3) == [SpeechEnd(17 * WINDOW_MS)]


def test_no_silence_needed_still_ends_after_a_window() -> None:
    """silence_duration_ms 0 ends a turn at the first silent window, not during speech."""
    segmenter = SpeechSegmenter(replace(RULES, silence_duration_ms=0))
    boundaries = _boundaries(segmenter, [0.9] * 5 + [0.0])
    assert [type(boundary) for boundary in boundaries] == [SpeechStart, SpeechEnd]


def test_positions_count_from_where_the_stream_began() -> None:
    """After a clear, offsets still count all appended audio."""
    (start,) = _boundaries(SpeechSegmenter(RULES, start_ms=5_000), [0.9] * 2)
    assert start == SpeechStart(5_000, 5_000 + 2 * WINDOW_MS)


def test_a_pause_may_be_the_end() -> None:
    """Well before the silence that ends a turn there is word of it, once a pause."""
    segmenter = SpeechSegmenter(replace(RULES, pause_ms=96))
    boundaries = _boundaries(segmenter, [0.9] * 4 + [0.0] * 6 + [0.9] * 2 + [0.0] * 7)
    assert boundaries == [
        SpeechStart(0, 2 * WINDOW_MS),
        SpeechPause(7 * WINDOW_MS),
        SpeechResumption(11 * WINDOW_MS),
        SpeechPause(15 * WINDOW_MS),
        SpeechEnd(19 * WINDOW_MS),
    ]


def test_a_turn_that_sounds_finished_pauses_at_once() -> None:
    """Its first silent window is a pause; a user who has spoken on must sound finished again."""
    segmenter = SpeechSegmenter(replace(RULES, silence_duration_ms=4_000, pause_ms=1_000))
    _boundaries(segmenter, [0.9] * 4)
    segmenter.sounds_finished(is_finished=True)
    assert _boundaries(segmenter, [0.9] * 2 + [0.0]) == [SpeechPause(7 * WINDOW_MS)]
    assert _boundaries(segmenter, [0.9] * 14 + [0.0] * 20) == [SpeechResumption(8 * WINDOW_MS)]


def test_a_silence_that_ends_the_turn_is_no_pause() -> None:
    """Where a pause would take longer than the end, there is only the end."""
    segmenter = SpeechSegmenter(replace(RULES, pause_ms=500))
    kinds = [type(boundary) for boundary in _boundaries(segmenter, [0.9] * 4 + [0.0] * 30)]
    assert kinds == [SpeechStart, SpeechEnd]


def _in_reply(
    segmenter: SpeechSegmenter,
    probabilities: list[float],
    level_db: float = -20.0,
    echo: Echo = Echo.NONE,
) -> list[Boundary]:
    """Return what is found while a reply is heard."""
    windows = (Window(probability, level_db, echo) for probability in probabilities)
    found = (segmenter.feed(window, would_interrupt=True) for window in windows)
    return [boundary for boundary in found if boundary is not None]


def _careful() -> SpeechSegmenter:
    return SpeechSegmenter(replace(RULES, interruption=INTERRUPTION))


def test_words_interrupt_when_they_are_long_enough() -> None:
    """They are suspected as soon as any speech is; the turn begins where they began."""
    suspected, start = _in_reply(_careful(), [0.0] * 20 + [0.9] * 20)
    assert suspected == InterruptionSuspected(22 * WINDOW_MS)
    assert start == SpeechStart(start_ms=20 * WINDOW_MS - 300, at_ms=32 * WINDOW_MS)


def test_what_is_short_does_not_interrupt() -> None:
    """Eleven windows are a "mhm"; it is dismissed after 192 ms of silence."""
    segmenter = _careful()
    suspected, dismissed = _in_reply(segmenter, [0.9] * 11 + [0.0] * 20)
    assert suspected == InterruptionSuspected(2 * WINDOW_MS)
    assert dismissed == InterruptionDismissed(17 * WINDOW_MS)
    # The next is judged by itself.
    assert len(_in_reply(segmenter, [0.9] * 11 + [0.0] * 20)) == 2


def test_pauses_between_syllables_are_part_of_words() -> None:
    """Five windows of silence are one."""
    found = _in_reply(_careful(), [0.9] * 6 + [0.0] * 5 + [0.9] * 6)
    assert found == [InterruptionSuspected(2 * WINDOW_MS), SpeechStart(0, 17 * WINDOW_MS)]


def test_a_click_is_not_suspected_in_a_reply() -> None:
    """Nor do many become one."""
    assert not _in_reply(_careful(), [0.9, 0.0] * 20)


def test_who_is_far_quieter_than_the_user_does_not_interrupt() -> None:
    """Once the user's own voice is known; until then anybody does."""
    assert len(_in_reply(_careful(), [0.9] * 12, level_db=-50.0)) == 2
    segmenter = _careful()
    for probability in [0.9] * 20 + [0.0] * 7:
        segmenter.feed(Window(probability, -20.0 if probability else -60.0))
    _in_reply(segmenter, [0.0] * 4, level_db=-60.0)
    assert not _in_reply(segmenter, [0.9] * 50, level_db=-33.0)
    assert len(_in_reply(segmenter, [0.9] * 15, level_db=-31.0)) == 2


def test_a_suspicion_outlives_its_reply() -> None:
    """When the reply is over meanwhile, what is said begins a turn as at any time."""
    segmenter = _careful()
    assert len(_in_reply(segmenter, [0.9] * 4)) == 1
    assert segmenter.feed(Window(0.9)) == SpeechStart(0, 5 * WINDOW_MS)
    segmenter = _careful()
    assert len(_in_reply(segmenter, [0.9] * 4)) == 1
    assert segmenter.feed(Window(0.0)) == InterruptionDismissed(5 * WINDOW_MS)
    assert segmenter.feed(Window(0.9)) is None


def test_without_a_reply_nothing_is_suspected() -> None:
    """A turn begins at once."""
    assert _boundaries(_careful(), [0.9] * 3) == [SpeechStart(0, 2 * WINDOW_MS)]
    eager = replace(RULES, interruption=replace(INTERRUPTION, speech_ms=0))
    assert _in_reply(SpeechSegmenter(eager), [0.9] * 3) == [SpeechStart(0, 2 * WINDOW_MS)]


def test_what_may_be_an_echo_waits_until_that_is_known() -> None:
    """Words in the first second of a reply begin a turn where they began, once it is known."""
    segmenter = _careful()
    words = [0.0] * 20 + [0.9] * 16 + [0.0] * 14
    assert not _in_reply(segmenter, words, echo=Echo.UNKNOWN)
    # 300 ms of padding before 640 ms. The user has finished already, and is silent on.
    found = _in_reply(segmenter, [0.0] * 8)
    assert found == [SpeechStart(20 * WINDOW_MS - 300, 51 * WINDOW_MS), SpeechEnd(58 * WINDOW_MS)]


def test_what_was_an_echo_is_forgotten() -> None:
    """Only what is heard beside it, once it is taken out, counts."""
    segmenter = _careful()
    assert not _in_reply(segmenter, [0.9] * 40, echo=Echo.UNKNOWN)
    assert not _in_reply(segmenter, [0.0] * 6, echo=Echo.REMOVED)
    assert not _in_reply(segmenter, [0.9] * 40, echo=Echo.UNKNOWN)
    suspected, start = _in_reply(segmenter, [0.9] * 13, echo=Echo.REMOVED)
    assert suspected == InterruptionSuspected(88 * WINDOW_MS)
    # Speech looks a window longer where an echo was.
    assert start == SpeechStart(86 * WINDOW_MS - 300, 99 * WINDOW_MS)


def test_short_sounds_are_dismissed_before_an_echo_is_known() -> None:
    """A cough is none of the user's words, whoever made it; words after it are."""
    segmenter = _careful()
    assert not _in_reply(segmenter, [0.9] * 6 + [0.0] * 7, echo=Echo.UNKNOWN)
    assert not _in_reply(segmenter, [0.0] * 6)
    assert not _in_reply(segmenter, [0.9] * 6 + [0.0] * 7 + [0.9] * 12, echo=Echo.UNKNOWN)
    assert _in_reply(segmenter, [0.9]) == [SpeechStart(32 * WINDOW_MS - 300, 45 * WINDOW_MS)]


def test_words_outlive_a_reply_that_ends_before_it_is_known() -> None:
    """A reply of half a second says nothing about echoes: the words are the user's."""
    segmenter = _careful()
    assert not _in_reply(segmenter, [0.9] * 4, echo=Echo.UNKNOWN)
    assert segmenter.feed(Window(0.0, echo=Echo.UNKNOWN)) is None
    assert segmenter.feed(Window(0.0)) == SpeechStart(0, 6 * WINDOW_MS)


def test_levels_say_nothing_while_an_echo_is_taken_out() -> None:
    """Some of the voice goes with it."""
    segmenter = _careful()
    for probability in [0.9] * 20 + [0.0] * 7:
        segmenter.feed(Window(probability, -20.0 if probability else -60.0))
    assert len(_in_reply(segmenter, [0.9] * 15, level_db=-50.0, echo=Echo.REMOVED)) == 2
