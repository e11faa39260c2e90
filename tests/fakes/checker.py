"""Check the arguments of calls where the test runs."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from model.errors import GrammarError
from model.schemas.desk import Desk


class CheckerHere:
    """A checker without a process; what it is asked may be kept back until `release`."""

    def __init__(self, *, holds: bool = False) -> None:
        self._desk = Desk()
        self._holds = holds
        self.held: deque[Callable[[], None]] = deque()
        self.on_done: Callable[[], None] = lambda: None

    def misfit(self, owner: str, schema: str, text: str) -> Future[str | None]:
        """Check, now or when it is let."""
        del owner
        coming: Future[str | None] = Future()

        def work() -> None:
            try:
                made = self._desk.misfit(schema, text)
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
