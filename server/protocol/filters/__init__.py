"""Words that are checked before clients are told, and the verdicts; no I/O."""
