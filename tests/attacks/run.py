"""Run all attacks on a server of this machine: `make attack`.

Prints a table and, as its last line, JSON. Exits with 1 if a victim was hurt.
"""

import argparse
import asyncio
import importlib
import json
import sys
from pathlib import Path

from tests.attacks.harness import Attack, Figures, attacked, served

_HERE = Path(__file__).parent


def attacks() -> list[Attack]:
    """Return what the modules of this folder list as `ATTACKS`."""
    modules = sorted(path.stem for path in _HERE.glob("test_*.py"))
    loaded = (importlib.import_module(f"tests.attacks.{name}") for name in modules)
    return [attack for module in loaded for attack in getattr(module, "ATTACKS", ())]


def main() -> int:
    """Attack, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="attacks whose name has this in it")
    parser.add_argument("--config", choices=("scripted", "starter"), help="this engine only")
    options = parser.parse_args()
    configs = (options.config,) if options.config else ("scripted", "starter")
    chosen = [attack for attack in attacks() if options.only in attack.name]
    figures: list[Figures] = []
    print(f"{'attack':32} {'engine':9} {'first ms':>17} {'gap ms':>17} {'loop ms':>8} {'MB':>6}")
    for config in configs:
        with served(config) as server:
            for attack in chosen:
                if config in attack.configs:
                    made = asyncio.run(attacked(server, attack, config))
                    figures.append(made)
                    print(_row(made), flush=True)
    hurt = sum(made.is_victim_hurt for made in figures)
    last = {
        "attacks": len(figures),
        "victims_hurt": hurt,
        "loop_held_ms_max": round(max((made.loop_held_ms for made in figures), default=0.0), 1),
        "memory_kept_mb": round(max((made.memory_kept_mb for made in figures), default=0.0), 1),
    }
    print(json.dumps(last))
    return 1 if hurt or not figures else 0


def _row(made: Figures) -> str:
    alone, beside = made.alone, made.beside
    row = (
        f"{made.name:32} {made.config:9} {alone.first_ms:7.0f} → {beside.first_ms:7.0f} "
        f"{alone.gap_ms:7.0f} → {beside.gap_ms:7.0f} {made.loop_held_ms:8.1f} "
        f"{made.memory_kept_mb:6.1f}"
    )
    return f"{row}  HURT {beside.failure or ''}".rstrip() if made.is_victim_hurt else row


if __name__ == "__main__":
    sys.exit(main())
