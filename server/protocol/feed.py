"""Put a session's commands in an order that a turn-taking engine can follow.

The protocol lets everything happen at once: a user may speak, type and be answered in any overlap.
The engine takes one thing at a time: audio of a user turn, then its end, then a reply. The feed is
the one place that knows how the first becomes the second:

- While a response runs, whatever would change the conversation waits, in order, for its end.
- What concerns the conversation while a user turn is open goes before that turn: its audio is
  taken back, the command goes in, and the audio follows again.
- When the engine's memory no longer matches the conversation (an item was deleted, or inserted
  before others; the instructions changed), it is rebuilt from the conversation's words before
  anything else is fed.
"""

from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from model.engine.messages import (
    AppendAudio,
    AppendText,
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


class Feed:
    """Order the commands of one session.

    Args:
        session_id: names the session in every command.
        max_kept_samples: how much of an open turn is kept for feeding it again. Older audio is
            dropped from what is kept: it lies beyond what the model remembers as audio.
        history: gives the conversation's opening and items as commands, for a rebuild.
        on_taken_back: called when the open turn will have to be fed again.
    """

    def __init__(
        self,
        session_id: str,
        max_kept_samples: int,
        history: Callable[[], tuple[Open, Iterable[AppendText]]],
        on_taken_back: Callable[[], None],
    ) -> None:
        self._session_id = session_id
        self._max_kept_samples = max_kept_samples
        self._history = history
        self._on_taken_back = on_taken_back
        self._turn: deque[Pcm] = deque()
        self._turn_samples = 0
        self._is_turn_fed = False
        self._is_responding = False
        self._is_outdated = False
        self._waiting: list[Command] = []
        self._awaited_transcripts = 0

    @property
    def has_turn(self) -> bool:
        """Say whether a user turn is open."""
        return self._turn_samples > 0

    def audio(self, pcm: Pcm) -> list[Command]:
        """Add audio to the user turn; the first opens it."""
        if not len(pcm):
            return []
        self._turn.append(pcm)
        self._turn_samples += len(pcm)
        while self._turn_samples - len(self._turn[0]) >= self._max_kept_samples:
            self._turn_samples -= len(self._turn.popleft())
        if self._is_responding:
            return []
        if not self._is_turn_fed:
            return self._turn_again()
        return [AppendAudio(self._session_id, pcm)]

    def clear(self) -> list[Command]:
        """Forget the user turn."""
        taken_back = self._turn_back()
        self._forget_turn()
        return taken_back

    def commit(self, item_id: str) -> list[Command]:
        """End the user turn; it becomes an item."""
        commands: list[Command] = []
        if not self._is_turn_fed:
            commands += [*self._rebuilt(), AppendAudio(self._session_id, self._turn_audio())]
        commands.append(CommitAudio(self._session_id, item_id))
        self._forget_turn()
        self._awaited_transcripts += 1
        return self._now_or_later(commands)

    def transcribed(self) -> None:
        """Note that the transcript of a committed turn has come."""
        self._awaited_transcripts = max(0, self._awaited_transcripts - 1)

    def item_audio(self, pcm: Pcm, item_id: str) -> list[Command]:
        """Add an item that is audio; its words are not known before its transcript comes."""
        commands = [
            *self._turn_back(),
            *self._rebuilt(),
            AppendAudio(self._session_id, pcm),
            CommitAudio(self._session_id, item_id),
        ]
        self._awaited_transcripts += 1
        if not self._is_responding:
            commands += self._turn_again()
        return self._now_or_later(commands)

    def say(self, command: AppendText | Truncate) -> list[Command]:
        """Change the conversation by words: add a typed item, or truncate one."""
        if self._will_rebuild:
            # The rebuild brings the conversation as it is then, this change included.
            return []
        if self._is_responding:
            return self._now_or_later([command])
        return [*self._turn_back(), command, *self._turn_again()]

    def outdate(self) -> list[Command]:
        """Note that the engine's memory no longer matches the conversation."""
        self._is_outdated = True
        return self._turn_back()

    def respond(self, command: Respond) -> list[Command]:
        """Start a response; an open user turn waits for its end."""
        assert not self._is_responding, "one response at a time"
        commands = [*self._turn_back(), *self._rebuilt(), command]
        self._is_responding = True
        return commands

    def cancel(self, turn: int, heard: Truncate | None) -> list[Command]:
        """Stop the response, say how much of it was heard, and let in what waited."""
        self._is_responding = False
        commands: list[Command] = [Cancel(self._session_id, turn)]
        if heard is not None:
            commands.append(heard)
        return [*commands, *self._let_in()]

    def finish(self) -> list[Command]:
        """Let in what waited for the response's end."""
        self._is_responding = False
        return self._let_in()

    @property
    def _will_rebuild(self) -> bool:
        # A committed turn whose words are not known yet exists in the engine only: until its
        # transcript comes, a rebuild would lose it.
        return self._is_outdated and not self._awaited_transcripts

    def _now_or_later(self, commands: list[Command]) -> list[Command]:
        if not self._is_responding:
            return commands
        self._waiting += commands
        return []

    def _let_in(self) -> list[Command]:
        waited, self._waiting = self._waiting, []
        if self._will_rebuild:
            waited = []
        return [*waited, *self._turn_again()]

    def _rebuilt(self) -> list[Command]:
        if self._is_responding or not self._will_rebuild:
            return []
        self._is_outdated = False
        opening, items = self._history()
        return [Close(self._session_id), opening, *items]

    def _turn_back(self) -> list[Command]:
        if not self._is_turn_fed:
            return []
        self._is_turn_fed = False
        self._on_taken_back()
        return [ClearAudio(self._session_id)]

    def _turn_again(self) -> list[Command]:
        if not self.has_turn:
            return []
        rebuilt = self._rebuilt()
        self._is_turn_fed = True
        return [*rebuilt, AppendAudio(self._session_id, self._turn_audio())]

    def _turn_audio(self) -> Pcm:
        return np.concatenate(tuple(self._turn)) if len(self._turn) > 1 else self._turn[0]

    def _forget_turn(self) -> None:
        self._turn.clear()
        self._turn_samples = 0
        self._is_turn_fed = False
