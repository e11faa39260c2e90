"""Run all attacks on a server of this machine: `make attack`.

Prints a table and, as its last line, JSON. Exits with 1 if a victim was hurt, or if the server did
not refuse what it has to.
"""

import argparse
import asyncio
import itertools
import json
import sys

from tests.attacks import outages, peers, schemas, work
from tests.attacks.harness import Attack, Figures, Setup, attacked, served, warm_up

ATTACKS: tuple[Attack, ...] = (
    *schemas.ATTACKS,
    *work.ATTACKS,
    *peers.ATTACKS,
    *outages.ATTACKS,
)
_ROUNDS = 3


def main() -> int:
    """Attack, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="attacks whose name has this in it")
    parser.add_argument("--config", choices=("scripted", "starter"), help="this engine only")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="of each attack")
    options = parser.parse_args()
    configs = (options.config,) if options.config else ("scripted", "starter")
    chosen = [attack for attack in ATTACKS if options.only in attack.name]
    figures: list[Figures] = []
    print(
        f"{'attack':30} {'engine':9} {'first ms':>15} {'gap ms':>15} {'loop ms':>15} {'MB':>6} "
        f"{'waves':>6}"
    )
    for config in configs:
        here = [attack for attack in chosen if config in attack.configs]
        for (setup, _), group in itertools.groupby(here, _server_of):
            with served(config, setup) as server:
                asyncio.run(warm_up(server.target))
                for attack in group:
                    made = asyncio.run(attacked(server, attack, config, rounds=options.rounds))
                    figures.append(made)
                    print(_row(made), flush=True)
    hurt = sum(made.harm is not None for made in figures)
    last = {
        "attacks": len(figures),
        "victims_hurt": hurt,
        "loop_held_ms_max": round(max((made.loop_held_ms for made in figures), default=0.0), 1),
        "memory_kept_mb": round(max((made.memory_kept_mb for made in figures), default=0.0), 1),
    }
    print(json.dumps(last))
    return 1 if hurt or not figures or any(made.fault for made in figures) else 0


def _server_of(attack: Attack) -> tuple[Setup, str]:
    """Say which attacks have a server in common: an engine that is lost too often is given up."""
    return attack.setup, attack.name if attack.is_outage else ""


def _row(made: Figures) -> str:
    alone, beside = made.alone, made.beside
    row = (
        f"{made.name:30} {made.config:9} {alone.first_ms:6.0f} → {beside.first_ms:6.0f} "
        f"{alone.gap_ms:6.0f} → {beside.gap_ms:6.0f} "
        f"{made.loop_held_alone_ms:6.0f} → {made.loop_held_ms:6.0f} "
        f"{made.memory_kept_mb:6.1f} {made.num_waves:6}"
    )
    harm = f"  HURT: {made.harm}" if made.harm else ""
    return row + harm + (f"\n{made.fault}" if made.fault else "")


if __name__ == "__main__":
    sys.exit(main())
