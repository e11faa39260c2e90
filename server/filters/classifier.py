"""Judge words by a classifier that runs here, by a package that carries its model."""

import asyncio
from collections.abc import Callable, Sequence

from server.errors import ConfigError
from server.filters.checks import Finding


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

    async def judge(self, text: str) -> Finding:
        """Return what is found in a text."""
        # It computes for some hundred microseconds, in which nobody else should have to wait.
        (probability,) = await asyncio.to_thread(self._probabilities, [text])
        return Finding(is_refused=bool(probability >= self._threshold))

    async def close(self) -> None:
        """Do nothing: it holds no connection."""


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
