"""Keep the engine's memory equal to the conversation.

Most of what happens is passed on as it comes: the engine takes commands in order, each when its
turn allows. What it cannot do is change its past at will: delete what a user said, insert between
old items, begin under other instructions. Then the feed notes that the memory is outdated, and
before the next thing that depends on it, the engine starts over from the conversation's words.
"""

from collections import deque
from collections.abc import Callable

import numpy as np

from model.engine.messages import (
    AppendAudio,
    Cancel,
    ClearAudio,
    Close,
    Command,
    CommitAudio,
    Open,
    Pcm,
    Respond,
    Truncate,
)
from server.protocol.conversation import Conversation
from server.protocol.items import Item
from server.protocol.recordings import Recordings
from server.protocol.replay import replayed


class Feed:
    """Make the commands of one session.

    Args:
        session_id: names the session in every command.
        max_kept_samples: how much of an open turn is kept for feeding it again; older audio lies
            beyond what the model remembers as audio.
        conversation: what the engine is to remember.
        recordings: keep the sound of the turns.
        opening: gives the command that begins it.
        on_heard_again: called when the open turn is fed from its start again.
    """

    def __init__(
        self,
        session_id: str,
        max_kept_samples: int,
        conversation: Conversation,
        recordings: Recordings,
        opening: Callable[[], Open],
        on_heard_again: Callable[[], None],
    ) -> None:
        self._session_id = session_id
        self._max_kept_samples = max_kept_samples
        self._conversation = conversation
        self._recordings = recordings
        self._opening = opening
        self._on_heard_again = on_heard_again
        self._turn: deque[Pcm] = deque()  # audio of the open turn
        self._num_turn_samples = 0
        self._is_turn_whole = True
        self._spoken: set[str] = set()  # items that the engine remembers as audio of its own
        self._is_responding = False
        self._is_outdated = False
        self._num_awaited_transcripts = 0

    def audio(self, pcm: Pcm) -> list[Command]:
        """Add audio to the user turn; the first opens it."""
        self._turn.append(pcm)
        self._num_turn_samples += len(pcm)
        while self._num_turn_samples - len(self._turn[0]) >= self._max_kept_samples:
            self._num_turn_samples -= len(self._turn.popleft())
            self._is_turn_whole = False
        # Starting over feeds the turn's audio, this chunk included.
        return self._start_over() or [AppendAudio(self._session_id, pcm)]

    def clear(self) -> list[Command]:
        """Forget the user turn."""
        if not self._turn:
            return []
        self._forget_turn()
        return [ClearAudio(self._session_id)]

    def commit(self, item_id: str) -> list[Command]:
        """End the user turn; it becomes an item."""
        commands = [*self._start_over(), CommitAudio(self._session_id, item_id)]
        if self._is_turn_whole:
            self._recordings.begin(item_id)
            for pcm in self._turn:
                self._recordings.add(item_id, pcm)
        self._forget_turn()
        self._num_awaited_transcripts += 1
        return commands

    def item_audio(self, pcm: Pcm, item_id: str) -> list[Command]:
        """Add an item that is audio; it goes before a user turn that is open."""
        spoken: list[Command] = [
            AppendAudio(self._session_id, pcm),
            CommitAudio(self._session_id, item_id),
        ]
        self._recordings.begin(item_id)
        self._recordings.add(item_id, pcm)
        commands: list[Command] = [*self._start_over()]
        self._num_awaited_transcripts += 1
        if not self._turn:
            return [*commands, *spoken]
        return [*commands, ClearAudio(self._session_id), *spoken, *self._turn_again()]

    def transcribed(self) -> None:
        """Note that the transcript of a committed turn has come."""
        self._num_awaited_transcripts = max(0, self._num_awaited_transcripts - 1)

    def add(self, item: Item) -> list[Command]:
        """Add an item at the conversation's end."""
        # Starting over brings the whole conversation, this item included.
        return [] if self._can_start_over else replayed(self._session_id, item)

    def unsay(self, item_id: str, heard_ms: int) -> list[Command]:
        """Forget what was not heard of an assistant's item; 0 ms heard is nothing of it."""
        if item_id in self._spoken:
            return [Truncate(self._session_id, item_id, heard_ms)]
        self.outdate()
        return []

    def called(self, item_id: str) -> None:
        """Note that the reply which began with an item went on with function calls.

        Going back within the item would take the calls with it.
        """
        self._spoken.discard(item_id)

    def outdate(self) -> None:
        """Note that the engine's memory no longer matches the conversation."""
        self._is_outdated = True

    def respond(self, command: Respond) -> list[Command]:
        """Start a response."""
        commands = [*self._start_over(), command]
        self._spoken.add(command.item_id)
        self._is_responding = True
        return commands

    def cancel(self, turn: int) -> list[Command]:
        """Stop the response."""
        self._is_responding = False
        return [Cancel(self._session_id, turn)]

    def finish(self) -> None:
        """Note that the response has ended."""
        self._is_responding = False

    @property
    def _can_start_over(self) -> bool:
        # A reply in progress, and a turn whose words are not known yet, exist in the engine only.
        is_free = not self._is_responding and not self._num_awaited_transcripts
        return self._is_outdated and is_free

    def _start_over(self) -> list[Command]:
        """Tell the engine the conversation anew, if it must be and can be."""
        if not self._can_start_over:
            return []
        self._is_outdated = False
        self._spoken.clear()
        items = [
            command for item in self._conversation for command in replayed(self._session_id, item)
        ]
        return [Close(self._session_id), self._opening(), *items, *self._turn_again()]

    def _turn_again(self) -> list[Command]:
        if not self._turn:
            return []
        self._on_heard_again()
        return [AppendAudio(self._session_id, np.concatenate(tuple(self._turn)))]

    def _forget_turn(self) -> None:
        self._turn.clear()
        self._num_turn_samples = 0
        self._is_turn_whole = True
