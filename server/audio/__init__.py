"""Pure audio: wire encodings, streaming resampling and voice activity; no I/O and no clock."""
