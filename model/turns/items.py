"""Put items into the history that nobody said just now: typed turns, replays, calls' outputs."""

from __future__ import annotations

from model.cache.state import Kind
from model.messages import AppendCall, AppendCallOutput, AppendText
from model.turns.call import remembered
from model.turns.history import AssistantItem, History
from model.vocabulary import TurnVocabulary

Item = AppendText | AppendCall | AppendCallOutput


def append_item(history: History, item: Item, vocabulary: TurnVocabulary, max_pieces: int) -> None:
    """Add an item to the history, in the words that the starter knows.

    A call looks like a reply that says the function's name and the words of its arguments, and
    what it returned like a typed turn: the starter has no pieces of their own for them. System
    items are left out, since it was not taught to follow instructions.

    Args:
        history: written.
        item: what is added.
        vocabulary: of the tokenizer.
        max_pieces: most pieces of its words; the last ones are kept.
    """
    match item:
        case AppendText(role="system"):
            return
        case AppendText(role="assistant"):
            text, is_reply = item.text, True
        case AppendText():
            text, is_reply = item.text, False
        case AppendCall():
            text, is_reply = remembered(item.name, item.arguments), True
        case AppendCallOutput():
            text, is_reply = item.output, False
    pieces = vocabulary.last_pieces(text, max_pieces)
    if is_reply:
        pieces = [vocabulary.reply, *pieces, vocabulary.eos]
        start, stop = len(history), len(history) + len(pieces)
        history.items.append(AssistantItem(item.item_id, start, is_audio=False, stop=stop))
    else:
        pieces = [vocabulary.user, *pieces]
    for piece in pieces:
        history.append(Kind.TEXT, piece)
