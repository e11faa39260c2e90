"""Scoring the starter: conversations through the engine, what is counted, how it is reported."""
