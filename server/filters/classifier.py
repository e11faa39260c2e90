"""Judge words by a classifier that runs here, by a package that carries its model."""

import asyncio
from collections.abc import Callable, Sequence

from server.errors import ConfigError
from server.filters.checks import Finding
from server.filters.remote import CheckError

# A worked example. The classifier takes about as long for one text as for sixteen, some ten
# milliseconds, nearly all of it before it looks at any. Three sessions ask at the same moment:
#
#     a asks     the classifier begins with a, in a thread
#     b, c ask   and wait
#     a is judged; the classifier takes b and c together
#
# So nobody waits for more than two times of it, however many ask.


class Offensive:
    """Refuse what is likely to be offensive: abuse, slurs, obscenities, in English.

    The model is a linear one over words, of `alt-profanity-check`. It is part of the package, as
    code that is run when it is loaded: whoever installs the package trusts it with that.

    Args:
        threshold: probability from which on a text is refused, above 0 and below 1.

    Raises:
        ConfigError: the package is not installed.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._probabilities = _loaded()
        self._probabilities(["the first text takes longer"])
        self._waiting: list[tuple[str, asyncio.Future[float]]] = []
        self._judging: asyncio.Task[None] | None = None

    async def judge(self, text: str) -> Finding:
        """Return what is found in a text.

        Raises:
            CheckError: it cannot be judged.
        """
        judged: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, judged))
        if self._judging is None or self._judging.done():
            self._judging = asyncio.create_task(self._judge_waiting(), name="check offensive")
        return Finding(is_refused=await judged >= self._threshold)

    async def _judge_waiting(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, []
            try:
                found = await asyncio.to_thread(self._probabilities, [text for text, _ in asked])
            except Exception as error:  # noqa: BLE001 - whatever it is, the words pass or are held
                for _, judged in asked:
                    if not judged.done():
                        judged.set_exception(CheckError(type(error).__name__))
                continue
            for (_, judged), probability in zip(asked, found, strict=True):
                if not judged.done():  # whoever asked has given it up
                    judged.set_result(float(probability))

    async def close(self) -> None:
        """Judge nothing more."""
        if self._judging is not None:
            self._judging.cancel()
            await asyncio.gather(self._judging, return_exceptions=True)


def _loaded() -> Callable[[list[str]], Sequence[float]]:
    try:
        # It brings scikit-learn along, and is loaded where it is wanted.
        from profanity_check import predict_prob  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"filters.checks: 'offensive' needs a package that is not installed ({error}). Install "
            "the extra `classifier`: pip install .[classifier]"
        ) from None
    probabilities: Callable[[list[str]], Sequence[float]] = predict_prob
    return probabilities
