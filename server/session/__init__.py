"""One object per live session, joining protocol, audio, voice detection and engine."""
