"""Put engines together from what is on disk. Nothing below knows of this room."""
