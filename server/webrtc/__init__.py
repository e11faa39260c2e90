"""Calls over WebRTC: signalling, ICE, DTLS, RTP and the data channel, beside the WebSocket."""
