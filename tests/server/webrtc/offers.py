"""Offers as browsers make them."""

FINGERPRINT = ":".join(["AB"] * 32)
AUDIO = """m=audio 9 UDP/TLS/RTP/SAVPF 111 63
c=IN IP4 0.0.0.0
a=mid:0
a=ice-ufrag:abcd
a=ice-pwd:0123456789abcdef01234567
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a=sendrecv
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
"""
CHANNEL = """m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:1
a=ice-ufrag:abcd
a=ice-pwd:0123456789abcdef01234567
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a=sctp-port:5000
a=max-message-size:262144
"""
VIDEO = (
    AUDIO.replace("m=audio", "m=video")
    .replace("a=mid:0", "a=mid:2")
    .replace("111 63", "96")
    .replace(
        "a=rtpmap:111 opus/48000/2\na=fmtp:111 minptime=10;useinbandfec=1\na=rtpmap:63 red/48000/2",
        "a=rtpmap:96 VP8/90000",
    )
)
H264 = (
    "a=rtpmap:{pt} H264/90000\n"
    "a=fmtp:{pt} level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id=42e01f\n"
)


def offer(*sections: str, mids: str = "0 1") -> str:
    """Return an offer as browsers make them, without any candidate."""
    head = f"v=0\no=- 1 2 IN IP4 127.0.0.1\ns=-\nt=0 0\na=group:BUNDLE {mids}\n"
    text = head + "".join(sections or (AUDIO, CHANNEL))
    return text.replace("{fingerprint}", FINGERPRINT).replace("\n", "\r\n")
