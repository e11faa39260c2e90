"""The unified speech model: transformer, codec, dialogue programs, engine and training."""
