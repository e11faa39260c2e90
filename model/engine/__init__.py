"""Hold many conversations on one device. Its commands and outputs: `model.messages`."""
