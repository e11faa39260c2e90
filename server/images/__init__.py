"""Pictures: what clients send and show, read within bounds of bytes, pixels, memory and time."""
