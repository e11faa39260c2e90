"""Gather the keys that a caller presses into one text."""

MAX_KEYS = 64
"""Pressed one after another; the last of them ends the text as # does."""


class Keypad:
    """Hold the keys of one caller. It has no clock and does no I/O.

    Whoever owns it calls `due` when `due_s` has come.

    Args:
        pause_s: without a key, which ends the text.
    """

    # For example, with a pause of 2 s. 4 and 2 at 10.0 and 10.4 s, and # at 11 s: "42" at 11 s. The
    # same without #: "42" at 12.4 s. A # alone is "#", since it can be an answer.

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._keys = ""
        self.due_s: float | None = None

    def press(self, digit: str, now_s: float) -> str | None:
        """Take a key; returns the text that it ends."""
        if digit == "#" and self._keys:
            return self._ended()
        self._keys += digit
        if digit == "#" or len(self._keys) >= MAX_KEYS:
            return self._ended()
        self.due_s = now_s + self._pause_s
        return None

    def due(self, now_s: float) -> str | None:
        """Return the text that a pause has ended."""
        return self._ended() if self.due_s is not None and now_s >= self.due_s else None

    def _ended(self) -> str:
        keys, self._keys, self.due_s = self._keys, "", None
        return keys
