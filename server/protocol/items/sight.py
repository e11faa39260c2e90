"""Hold what a camera has shown since the user's last turn: the newest pictures."""

from collections import deque
from collections.abc import Collection

from server.images.picture import Picture


class Sight:
    """Keep the newest pictures until they are part of a turn.

    Args:
        max_pictures: that are kept.
    """

    def __init__(self, max_pictures: int) -> None:
        self._pictures: deque[Picture] = deque(maxlen=max_pictures)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Return what a turn that ended now would show, oldest first."""
        return tuple(self._pictures)

    def see(self, picture: Picture) -> None:
        """Add a picture; with too many, the oldest is forgotten."""
        self._pictures.append(picture)

    def shown(self, pictures: Collection[Picture]) -> None:
        """Note that pictures have become part of a turn, and are no other's."""
        kept = [each for each in self._pictures if each not in pictures]
        self._pictures.clear()
        self._pictures.extend(kept)
