"""Count what the text model is asked. Written and read in the event loop."""

from dataclasses import dataclass, field
from typing import Annotated

from model.metrics import counter, counter_by


@dataclass(slots=True)
class DelegateCounts:
    """Hold what is counted since the gateway started; shown at `/metrics`."""

    requests: Annotated[
        dict[str, int],
        counter_by(
            "outcome",
            "Questions to the text model: 'answered', 'failed', or 'dropped' because their "
            "response was over.",
        ),
    ] = field(default_factory=dict)
    seconds: Annotated[float, counter("How long these took together.")] = 0.0
    tokens: Annotated[
        dict[str, int],
        counter_by(
            "direction", "Tokens that the text model has read ('input') and written ('output')."
        ),
    ] = field(default_factory=dict)
