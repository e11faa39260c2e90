"""What checks cost: from the question about a sentence to its verdict.

    python -m benchmarks.bench_filters [--rounds 40] [--all]

The checks of `configs/starter-filtered.yaml`, with `--all` the classifier that runs here as well,
judge the sentences of the tests' corpus, on one event loop, as sessions ask for it: for each
sentence a task that ends with a verdict. With 16 sessions, all of them ask at the same moment,
which is the worst case. The first sentence of a reply is the first of a round; its delay is what
the checks can add to first audio at most. A reply's words run ahead of its sound, so what of it is
heard is less.

The last line is JSON, in milliseconds.
"""

import argparse
import asyncio
import gc
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import structlog
import yaml

from benchmarks.report import ROOT
from server.config.filters import FilterSettings, OffensiveCheck
from server.config.load import load_settings
from server.filters.desk import FilterDesk
from server.protocol.filters.verdicts import CheckWords, Verdict

_PRESET = Path("configs/starter-filtered.yaml")
_CORPUS = Path("tests/server/filters/corpus.yaml")
_SESSIONS = (1, 16)


async def delays_ms(
    settings: FilterSettings, num_sessions: int, sentences: Sequence[str], num_rounds: int
) -> np.ndarray:
    """Return how long each verdict took, float64 [rounds, sentences, sessions] in milliseconds."""
    desk = FilterDesk(settings)
    taken = np.zeros((num_rounds, len(sentences), num_sessions))
    began_s = 0.0
    place = (0, 0)
    left = 0
    done = asyncio.Event()

    def deliver(verdict: Verdict) -> None:
        nonlocal left
        taken[(*place, verdict.key)] = (time.perf_counter() - began_s) * 1000
        left -= 1
        if not left:
            done.set()

    sessions = [desk.for_session(f"sess_{n}", deliver) for n in range(num_sessions)]
    for turn in range(num_rounds):
        for index, text in enumerate(sentences):
            place, left = (turn, index), num_sessions
            done.clear()
            began_s = time.perf_counter()
            for key, session in enumerate(sessions):
                session.put(CheckWords(key, "spoken", text))
            await done.wait()
    for session in sessions:
        await session.close()
    await desk.close()
    return taken


def measure(num_rounds: int, *, is_all: bool = False) -> dict[str, float]:
    """Return all figures, in milliseconds.

    Args:
        num_rounds: how often all sentences are judged.
        is_all: whether every kind of check that runs here is among the checks.
    """
    settings = load_settings(ROOT / _PRESET, env={}).filters
    if is_all:
        classifier = OffensiveCheck(kind="offensive")
        settings = settings.model_copy(update={"checks": (*settings.checks, classifier)})
    corpus = yaml.safe_load((ROOT / _CORPUS).read_text(encoding="utf-8"))
    sentences = [*corpus["allowed"], *corpus["refused"]]
    figures: dict[str, float] = {}
    for num_sessions in _SESSIONS:
        asyncio.run(delays_ms(settings, num_sessions, sentences, 1))  # phone numbers are loaded
        gc.collect()
        taken = asyncio.run(delays_ms(settings, num_sessions, sentences, num_rounds))
        for name, values in (("sentence", taken), ("first", taken[:, 0])):
            for percent in (50, 95):
                key = f"{name}_p{percent}_ms_{num_sessions}"
                figures[key] = round(float(np.percentile(values, percent)), 3)
    return figures


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40, help="how often all sentences are judged")
    # What is found is logged; writing the log is no part of a check.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    parser.add_argument("--all", action="store_true", help="with the classifier that runs here")
    options = parser.parse_args()
    figures = measure(options.rounds, is_all=options.all)
    for name, value in figures.items():
        print(f"{name:24} {value:8.3f} ms")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
