"""Say whether a key looks like one that somebody made up."""

import itertools
import math
import re
from collections import Counter

# What people write where a key belongs, and what examples have there.
_WORDS = re.compile(
    "change|example|secret|password|passwd|passphrase|parley|server|realtime|openai|token|"
    "default|sample|dummy|your|test|demo|admin|user|local|here|none|key|api|abc|qwert|asdf|xxx|sk|"
    "needed|loopback|me-|my-|1234|0000",
    re.IGNORECASE,
)


def random_bits(text: str) -> float:
    """Estimate how many bits of a text are random: what is left of it without words and patterns.

    It is an estimate from below for what a generator made (hexadecimal digits count some 3.3 bits
    in place of 4), and says little of what is neither.
    """
    # `change-me-change-me` → `-me-` … → nothing but dashes. `abcdefgh` → `a`. 48 hexadecimal digits
    # stay as they are, and count 3.7 bits each: 180.
    rest = _without_runs(_WORDS.sub("", _period(text)))
    counts = Counter(rest).values()
    entropy = -sum(n / len(rest) * math.log2(n / len(rest)) for n in counts)
    return entropy * len(rest)


def _period(text: str) -> str:
    """Return the shortest beginning that the whole text repeats."""
    length = (text + text).find(text, 1)  # of a text that repeats nothing, its own length
    return text[:length]


def _without_runs(text: str) -> str:
    """Leave out characters that follow the two before them: the rest of `aaaa`, `abcd`, `9876`."""
    # The distance to the one before says whether it follows: 0, 1 or -1, and the same as last time.
    kept, last_step = text[:1], None
    for before, each in itertools.pairwise(text):
        step = ord(each) - ord(before)
        if step not in (-1, 0, 1) or step != last_step:
            kept += each
        last_step = step
    return kept
