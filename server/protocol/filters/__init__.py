"""What is checked before it is told, and what came of it; no I/O."""
