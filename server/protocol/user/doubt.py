"""Hold a reply's sound back while it is in doubt whether the user interrupts it.

What begins like speech may be a cough. Clients stop playing when they are told that speech has
begun, and this cannot be taken back. So they are told only when it is certain. A transport that
plays by itself pauses meanwhile, and goes on from there if it was no speech.
"""

from server.protocol.sound import PauseAudio, ResumeAudio, Sound

# A doubt ends with the user's sound. If no more sound comes, the reply goes on after this.
_LONGEST_S = 1.5


class Doubt:
    """Hold one session's doubt.

    Args:
        is_played: whether the transport plays replies; where clients play, nothing can be held
            back.
    """

    def __init__(self, *, is_played: bool) -> None:
        self._is_played = is_played
        self._since_s: float | None = None

    @property
    def deadline_s(self) -> float | None:
        """Return when it is to end whatever is heard, on the clock of `begin`; None for never."""
        return None if self._since_s is None else self._since_s + _LONGEST_S

    def begin(self, now_s: float) -> list[Sound]:
        """Be silent."""
        if not self._is_played:
            return []
        self._since_s = now_s
        return [PauseAudio()]

    def end(self) -> list[Sound]:
        """Play what there is to be played, if it was held back."""
        if self._since_s is None:
            return []
        self._since_s = None
        return [ResumeAudio()]
