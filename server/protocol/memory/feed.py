"""Keep the engine's memory equal to the conversation.

Most changes are passed on as they come: the engine takes commands in order. But it cannot change
its past freely: delete what a user said, insert between old items, begin under other instructions.
Then the feed notes that the memory is outdated. Before the next command that depends on the memory,
the engine starts over from the words of the conversation.

A turn may also be committed and answered before it is certain that the user has finished. Until it
is confirmed, any other command to the engine takes that turn back first.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from model.messages import (
    AppendAudio,
    Cancel,
    CheckTurn,
    ClearAudio,
    Close,
    Command,
    CommitAudio,
    Pcm,
    Pixels,
    Reopen,
    Respond,
    Truncate,
)
from server.protocol.events import InputAudio
from server.protocol.items.items import Item, Message
from server.protocol.items.mcp import McpReturned
from server.protocol.memory.open_turn import OpenTurn
from server.protocol.memory.replay import replayed
from server.protocol.memory.turn_check import TurnCheck
from server.protocol.settings.config import SemanticVad
from server.protocol.state import SessionState


class Feed(Protocol):
    """Make the commands that keep an engine's memory of items and responses.

    What it is told of the user's turns depends on how it converses: see `TurnFeed`, for engines
    that take turns, and `server.protocol.duplex`.
    """

    def check(self, item: Item, audio: InputAudio | None) -> None:
        """Refuse an item that the model cannot be told.

        Args:
            item: that a client adds.
            audio: that it carries, if it does.

        Raises:
            ClientError: saying what to do instead.
        """
        ...

    def is_heard(self, item: Message) -> bool:
        """Say whether an item that is audio is to be heard, not told in words."""
        ...

    def item_audio(self, pcm: Pcm, item: Message) -> list[Command]:
        """Add an item that is audio at the conversation's end."""
        ...

    def add(self, item: Item | McpReturned) -> list[Command]:
        """Add an item at the conversation's end; one that is heard comes as `item_audio`."""
        ...

    def unsay(self, item_id: str, heard_ms: int) -> list[Command]:
        """Forget what was not heard of an assistant's item; 0 ms heard is nothing of it."""
        ...

    def outdate(self) -> None:
        """Note that the engine's memory no longer matches the conversation."""
        ...

    def respond(self, command: Respond) -> list[Command]:
        """Start a response."""
        ...

    def cancel(self, turn: int) -> list[Command]:
        """Stop the response."""
        ...

    def called(self, item_id: str) -> None:
        """Note that the reply which began with an item went on with function calls."""
        ...

    def finish(self) -> None:
        """Note that the response has ended."""
        ...


# A worked example of an outdated memory. The conversation is a (user), b (assistant), c (user), and
# the engine remembers it. The client deletes a, which the engine cannot forget by itself. So
#
#     delete a          nothing is sent; `outdate` notes it
#     the user speaks   Close, Open, AppendText(b), AppendText(c), AppendAudio ...
#
# Closing and opening again costs the engine a few steps of prefill, which it does while the user
# speaks. If a reply is being made meanwhile, or a transcript is due, starting over waits: these
# exist in the engine alone (`_can_start_over`).


class TurnFeed:
    """Make the commands of one session with an engine that takes turns.

    Args:
        state: of the session: what the engine is to remember.
        max_kept_samples: how much of an open turn is kept for feeding it again.
        turn_check: whether the open turn sounds finished.
        on_heard_again: called when the open turn is fed from its start again.
    """

    def __init__(
        self,
        state: SessionState,
        max_kept_samples: int,
        turn_check: TurnCheck,
        on_heard_again: Callable[[], None],
    ) -> None:
        self._state = state
        self._session_id = state.session_id
        self._turn = OpenTurn(max_kept_samples)
        self._turn_check = turn_check
        self._on_heard_again = on_heard_again
        self._spoken: set[str] = set()  # items that the engine remembers as audio of its own
        self._is_responding = False
        self._is_outdated = False
        self._awaited: set[str] = set()  # commits whose transcripts are due
        self._tentative: tuple[CommitAudio, Respond] | None = None
        self._held: list[Pcm] = []  # audio of the turn since it was tentatively committed

    def audio(self, pcm: Pcm) -> list[Command]:
        """Add audio to the user turn; the first opens it."""
        self._turn.add(pcm)
        # The pause is kept here: if the user goes on, it is heard after all, and before what
        # follows.
        if self._tentative is not None:
            self._held.append(pcm)
            return []
        # Starting over feeds the turn's audio, this chunk included.
        return self._start_over() or [AppendAudio(self._session_id, pcm)]

    def clear(self) -> list[Command]:
        """Forget the user turn."""
        if not self._turn:
            return []
        commands = [*self.withdraw(), ClearAudio(self._session_id)]
        self._turn.forget()
        self._turn_check.forget()
        return commands

    def commit(self, item_id: str, images: tuple[Pixels, ...] = ()) -> list[Command]:
        """End the user turn; it becomes an item.

        Args:
            item_id: of the item.
            images: what was shown in it.
        """
        commands = [
            *self.withdraw(),
            *self._start_over(),
            CommitAudio(self._session_id, item_id, images=images),
        ]
        self._committed(item_id, item_id)
        return commands

    def speculate(
        self, commit_id: str, command: Respond, images: tuple[Pixels, ...] = ()
    ) -> list[Command]:
        """Commit the user turn and start its response, for the case that the user has finished.

        Args:
            commit_id: names the commit to the engine, this one only: a transcript that was made
                before it was taken back must not be mistaken for a later one.
            command: starts the response.
            images: what was shown in the turn so far.
        """
        assert self.can_speculate, "there is nothing to foresee"
        commit = CommitAudio(self._session_id, commit_id, is_tentative=True, images=images)
        self._tentative = commit, command
        return [*self._tentative]

    def commit_silence(self, item: Message) -> list[Command]:
        """End a user turn in which nobody spoke; the engine is told of a turn without words.

        The sound that the engine has heard of it is cleared, because a model finds words in noise.
        """
        withdrawn = self.withdraw()
        cleared: list[Command] = [ClearAudio(self._session_id)] if self._turn else []
        self._record(item.id)
        return [*withdrawn, *cleared, *self.add(item)]

    def check_turn(self) -> list[Command]:
        """Ask whether the user turn sounds finished; not while it is committed tentatively."""
        if self._tentative is not None or not self._turn:
            return []
        return [self._question(self._turn_check.ask())]

    @property
    def can_speculate(self) -> bool:
        """Say whether the turn could be committed now and nothing would be in the way."""
        is_free = not self._is_outdated and not self._is_responding
        return is_free and self._tentative is None and bool(self._turn)

    @property
    def is_speculating(self) -> bool:
        """Say whether the turn is committed tentatively."""
        return self._tentative is not None

    def withdraw(self) -> list[Command]:
        """Take a tentative commit back, if there is one: the turn goes on."""
        if self._tentative is None:
            return []
        (commit, _), self._tentative = self._tentative, None
        held, self._held = self._held, []
        again = [AppendAudio(self._session_id, np.concatenate(held))] if held else []
        return [Reopen(self._session_id, commit.item_id), *again]

    def confirm(self, item_id: str) -> None:
        """End the user turn as it was tentatively committed; it becomes an item."""
        assert self._tentative is not None, "nothing was committed tentatively"
        (commit, command), self._tentative = self._tentative, None
        self._held = []
        self._committed(item_id, commit.item_id)
        self._responded(command)

    def _committed(self, item_id: str, commit_id: str) -> None:
        self._record(item_id)
        self._awaited.add(commit_id)

    def _record(self, item_id: str) -> None:
        """Keep the sound of the open turn as an item's; the turn is over."""
        self._turn.end(item_id, self._state.recordings)
        self._turn_check.forget()

    def _responded(self, command: Respond) -> None:
        self._spoken.add(command.item_id)
        self._is_responding = True

    def is_heard(self, item: Message) -> bool:
        """Say whether an item that is audio is to be heard; one whose words are known is not."""
        return not item.is_known

    @property
    def num_open_samples(self) -> int:
        """Count the samples of the user turn that is open, as far as they are kept."""
        return self._turn.num_samples

    def told_anew(self) -> list[Command]:
        """Start over now, if the memory is outdated and it is possible; else it is done later."""
        return [*self.withdraw(), *self._start_over()] if self._can_start_over else []

    def item_audio(self, pcm: Pcm, item: Message) -> list[Command]:
        """Add an item that is audio; it goes before a user turn that is open."""
        item_id, images = item.id, tuple(picture.pixels for picture in item.pictures)
        spoken: list[Command] = [
            AppendAudio(self._session_id, pcm),
            CommitAudio(self._session_id, item_id, images=images),
        ]
        commands: list[Command] = [*self.withdraw(), *self._start_over()]
        self._awaited.add(item_id)
        if not self._turn:
            return [*commands, *spoken]
        return [*commands, ClearAudio(self._session_id), *spoken, *self._turn_again()]

    def transcribed(self, commit_id: str) -> bool:
        """Note that the transcript of a commit has come; False if it was taken back."""
        is_awaited = commit_id in self._awaited
        self._awaited.discard(commit_id)
        return is_awaited

    def awaits(self, commit_id: str) -> bool:
        """Say whether the transcript of a commit is due."""
        return commit_id in self._awaited

    @property
    def awaits_any(self) -> bool:
        """Say whether the words of something that the user said are not known yet."""
        return bool(self._awaited)

    def lost(self) -> list[Command]:
        """Start over in a session that knows nothing, because the engine lost the old one.

        What a user said and whose words are not known yet is heard again, where its sound is kept.
        """
        self._is_responding = False
        self._tentative = None
        self._held = []
        self._awaited.clear()
        self.outdate()
        return self._start_over()

    def check(self, item: Item, audio: InputAudio | None) -> None:
        """Take every item."""

    def add(self, item: Item | McpReturned) -> list[Command]:
        """Add an item at the conversation's end."""
        # Starting over brings the whole conversation, this item included.
        added = [] if self._can_start_over else replayed(self._session_id, item)
        return [*self.withdraw(), *added]

    def unsay(self, item_id: str, heard_ms: int) -> list[Command]:
        """Forget what was not heard of an assistant's item; 0 ms heard is nothing of it."""
        # What the engine said aloud it can go back in. What it was told in words it can only be
        # told anew.
        if item_id in self._spoken:
            return [*self.withdraw(), Truncate(self._session_id, item_id, heard_ms)]
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
        commands = [*self.withdraw(), *self._start_over(), command]
        self._responded(command)
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
        is_free = not self._is_responding and not self._awaited
        return self._is_outdated and is_free

    def _start_over(self) -> list[Command]:
        """Tell the engine the conversation anew, if it must be and can be."""
        if not self._can_start_over:
            return []
        self._is_outdated = False
        self._spoken.clear()
        items = [
            command
            for item in self._state.conversation.retold
            for command in replayed(self._session_id, item, self._state.recordings.pcm)
        ]
        self._awaited |= {c.item_id for c in items if isinstance(c, CommitAudio)}
        return [Close(self._session_id), self._state.opening(), *items, *self._turn_again()]

    def _turn_again(self) -> list[Command]:
        if not self._turn:
            return []
        self._on_heard_again()
        again: list[Command] = [AppendAudio(self._session_id, self._turn.pcm)]
        if self._turn_check.key is not None:
            again.append(self._question(self._turn_check.key))
        return again

    def _question(self, key: str) -> CheckTurn:
        """Ask with the eagerness that the client has set."""
        detection = self._state.config.turn_detection
        # Source: Realtime API reference, session, turn_detection, eagerness: "auto" is the same as
        # "medium".
        if not isinstance(detection, SemanticVad) or detection.eagerness == "auto":
            return CheckTurn(self._session_id, key)
        return CheckTurn(self._session_id, key, detection.eagerness)
