"""Follow the question whether the user's open turn sounds finished."""

from model.messages import TurnChecked


class TurnCheck:
    """Hold the question that the engine was asked last, and its answer.

    Attributes:
        key: names the question that has not been answered yet; None if there is none.
        sounds_finished: what the engine answered last of the open turn.
    """

    def __init__(self) -> None:
        self.key: str | None = None
        self.sounds_finished = False
        self._num_questions = 0

    def ask(self) -> str:
        """Ask anew, and return the question's key."""
        self._num_questions += 1
        self.key = f"turn_{self._num_questions}"
        return self.key

    def answered(self, answer: TurnChecked) -> None:
        """Take the answer; one to an older question is out of date."""
        if answer.key == self.key:
            self.key = None
            self.sounds_finished = answer.is_finished

    def forget(self) -> None:
        """Know nothing of the next turn."""
        self.key = None
        self.sounds_finished = False
