"""Write the arguments of calls at once, where the test runs."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from model.errors import GrammarError
from model.schemas.desk import Desk
from model.schemas.results import Draft
from model.vocabulary import TurnVocabulary


class WriterHere:
    """A writer without a process; what it is asked may be kept back until `release`."""

    def __init__(self, vocabulary: TurnVocabulary, *, holds: bool = False) -> None:
        self._desk = Desk(vocabulary)
        self._holds = holds
        self.held: deque[Callable[[], None]] = deque()
        self.on_done: Callable[[], None] = lambda: None

    def write(
        self,
        owner: str,
        call: str,
        schema: str,
        chosen: Sequence[int],
        *,
        closes: bool = False,
        without: Sequence[int] = (),
    ) -> Future[Draft]:
        """Write, now or when it is let."""
        del owner
        coming: Future[Draft] = Future()
        choices, tried = list(chosen), list(without)

        def work() -> None:
            try:
                made = self._desk.write(call, schema, choices, closes=closes, without=tried)
            except GrammarError as error:
                coming.set_exception(error)
                return
            coming.set_result(made)

        if self._holds:
            self.held.append(work)
        else:
            work()
        return coming

    def release(self) -> None:
        """Do the work that waits."""
        while self.held:
            self.held.popleft()()
            self.on_done()

    def close(self) -> None:
        """Drop what waits."""
        self.held.clear()
