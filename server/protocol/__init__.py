"""The Realtime protocol as a state machine without I/O."""
