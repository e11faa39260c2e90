"""Put items into the history that nobody said just now: typed turns, replays, calls' outputs."""

from __future__ import annotations

from collections.abc import Iterable

from model.cache.state import Kind
from model.messages import AppendCall, AppendCallOutput, AppendText
from model.prompts import call_pieces, result_text
from model.turns.call import remembered
from model.turns.history import AssistantItem, History
from model.turns.sight import Patch
from model.vocabulary import TurnVocabulary

Item = AppendText | AppendCall | AppendCallOutput


def append_item(
    history: History,
    item: Item,
    vocabulary: TurnVocabulary,
    max_pieces: int,
    *,
    goes_on: bool = False,
) -> None:
    """Add an item to the history, in the words that the starter knows.

    To a model that was not taught functions, a call looks like a reply that says the function's
    name and the words of its arguments, and what it returned like a typed turn. System items are
    left out: instructions are those of the session or of a response.

    Args:
        history: written.
        item: what is added.
        vocabulary: of the tokenizer.
        max_pieces: most pieces of its words; the last ones are kept.
        goes_on: whether a user's words go on that were interrupted by a picture.
    """
    is_taught, opening = vocabulary.is_taught_prompts, vocabulary.user
    is_reply = False
    match item:
        case AppendText(role="system"):
            return
        case AppendText():
            text, is_reply = item.text, item.role == "assistant"
        case AppendCall():
            text, is_reply = remembered(item.name, item.arguments), True
        case AppendCallOutput() if is_taught:
            text, opening = result_text(item.output), vocabulary.result
        case AppendCallOutput():
            text = item.output
    if is_taught and isinstance(item, AppendCall):
        pieces = call_pieces(item.name, item.arguments, vocabulary.encode)[-max_pieces:]
    else:
        pieces = vocabulary.last_pieces(text, max_pieces)
    if is_reply:
        pieces = [vocabulary.reply, *pieces, vocabulary.eos]
        start, stop = len(history), len(history) + len(pieces)
        history.items.append(AssistantItem(item.item_id, start, is_audio=False, stop=stop))
    else:
        pieces = pieces if goes_on else [opening, *pieces]
    for piece in pieces:
        history.append(Kind.TEXT, piece)


def append_pictures(
    history: History, pictures: Iterable[list[Patch]], vocabulary: TurnVocabulary
) -> None:
    """Add pictures to the history, a step for each of their patches."""
    for patches in pictures:
        for patch in patches:
            history.append(Kind.TEXT, vocabulary.image, patch=patch)
