"""Client events: how they are parsed and checked."""
