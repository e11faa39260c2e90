"""The tokenizer and vocoder: 16 kHz audio to codes and back, as a stream."""

from model.codec.mel import CodecState, MelCodec, MelCodecConfig, delay

__all__ = ["CodecState", "MelCodec", "MelCodecConfig", "delay"]
