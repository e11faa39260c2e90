"""Work out what is left of a reply that was heard only in part."""

from __future__ import annotations

import numpy as np

from model.cache.state import Kind
from model.messages import num_words_heard
from model.turns.history import AssistantItem, History, StepBlock
from model.vocabulary import TurnVocabulary

# A worked example. The reply "i am parley" was made, and the client says that it heard 250 ms of
# it, which is three whole frames of 80 ms. The steps of the item, before and after:
#
#     index   before                         after
#     0       <reply>                        <reply>
#     1       i        the words, written    i            begins at 160 ms: heard
#     2       am       ahead of the audio    am           begins at 240 ms: heard
#     3       parley                         -            begins at 320 ms: never said, then
#     4       SPEAK <speak>                  the same     its output is frame 0
#     5       SPEAK i         frame 0        the same
#     6       SPEAK am        frame 1        the same
#     7       SPEAK parley    frame 2        SPEAK pad    its word is taken, its sound stays
#     8       SPEAK pad       frame 3        -
#     ...
#     12      <eos>                          <eos>
#
# A word is put out two frames before it is heard: that is why step 7 has to be silenced.
#
# Which words count as heard is decided by one rule on both sides of the process line: those that
# start before the cut. `server/protocol/items` cuts the transcript by it, this file the memory.


def truncated(
    history: History,
    item: AssistantItem,
    heard_ms: int,
    vocabulary: TurnVocabulary,
    frame_ms: int,
) -> StepBlock:
    """Return the steps of `item` as if it had ended where it stopped being heard.

    The words written ahead of the audio are cut to those heard as well, so that the model does not
    remember having said the others. A reply of which no word was heard leaves nothing. A function
    call that came with the words stays: it was made, whatever was heard.

    Args:
        history: where the item lies.
        item: a complete item.
        heard_ms: how much of its audio was heard.
        vocabulary: to tell words from other pieces.
        frame_ms: length of one frame.

    Returns:
        The steps in its place, none at all if nothing was heard.
    """
    assert item.stop is not None
    steps = history.block(item.start, item.stop)
    num_words = num_words_heard(item.word_starts_ms, heard_ms)
    num_frames = heard_ms // frame_ms
    last = len(steps) - 1
    speak = last if item.speak is None else item.speak - item.start
    call = speak
    if vocabulary.is_taught_prompts and vocabulary.call in steps.text[:speak]:
        call = int(np.argmax(steps.text == vocabulary.call))
    if item.speak is None or not num_words or not num_frames:
        return _select(steps, [0, *range(call, speak), last] if call < speak else [])
    # The last step is <eos>; before it goes one step more than there are frames.
    plan = [int(piece) for piece in steps.text[1:call]]
    num_kept = len(vocabulary.first_words(plan, num_words))
    stop = min(speak + num_frames + 1, last)
    rows = [0, *range(1, 1 + num_kept), *range(call, speak), *range(speak, stop), last]
    result = _select(steps, rows)
    _silence_words(result, vocabulary, after=num_words)
    return result


def _select(steps: StepBlock, rows: list[int]) -> StepBlock:
    index = np.array(rows, dtype=np.int64)
    return StepBlock(
        steps.text[index],
        steps.kind[index],
        steps.user[index],
        steps.assistant[index],
        steps.patch[index],
    )


def _silence_words(steps: StepBlock, vocabulary: TurnVocabulary, *, after: int) -> None:
    """Take words from SPEAK steps that announce them but end before they are heard."""
    num_words = 0
    for i in np.flatnonzero(steps.kind == Kind.SPEAK):
        piece = int(steps.text[i])
        num_words += vocabulary.starts_word(piece)
        if vocabulary.is_word_piece(piece) and num_words > after:
            steps.text[i] = vocabulary.pad
