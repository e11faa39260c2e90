"""Hold many conversations on one device; see `model.engine.messages` for its commands and outputs."""
