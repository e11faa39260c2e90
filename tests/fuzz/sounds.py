"""Damage sound files of every kind: `python -m tests.fuzz.sounds --seconds N`.

Whatever a file holds, there are samples in [-1, 1], or one error that names the file.
"""

import argparse
import io
import json
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

from model.errors import ConfigError
from model.files.sound import read_sound
from tests.model.files.test_sound import KINDS

_HEADER_BYTES = 120  # most of what decides how a file is read


def damaged(rng: random.Random, whole: bytes) -> bytes:
    """Return a file in which some bytes are changed, cut out or put in."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 6)):
        at = rng.randint(0, min(max(len(data) - 1, 0), _HEADER_BYTES))
        data[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
    return bytes(data)


def verdict(path: Path) -> str:
    """Read a file, and say what came of it: "read", "refused" or what went wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pcm = read_sound(path, 24_000)
    except ConfigError as error:
        return "refused" if str(path) in str(error) else f"refused without its name: {error}"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return repr(error)
    return "read" if np.abs(pcm).max(initial=0.0) <= 1.0 else "louder than it can be"


def main() -> int:
    """Run for as long as asked, print figures, and return 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, counts, failures = random.Random(args.seed), Counter[str](), []
    wholes: list[tuple[str, bytes]] = []
    for kind, coding in KINDS:
        buffer = io.BytesIO()
        soundfile.write(buffer, np.full(400, 0.25), 16_000, format=kind, subtype=coding)
        wholes.append((f"{kind} {coding}", buffer.getvalue()))
    stop_s = time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged"
        while time.monotonic() < stop_s:
            name, whole = rng.choice(wholes)
            data = damaged(rng, whole)
            path.write_bytes(data)
            found = verdict(path)
            counts[found if found in ("read", "refused") else "failed"] += 1
            if found not in ("read", "refused"):
                failures.append(f"{name}: {found}: {data[: 2 * _HEADER_BYTES].hex()}")
    for failure in failures[:10]:
        print(failure)
    print(json.dumps({"files": counts.total(), **counts, "kinds": len(KINDS)}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
