"""Base64 is read as clients write it, up to the API's limit."""

import pytest

from server.errors import ClientError
from server.protocol.wire.audio import decode_base64


@pytest.mark.parametrize("text", ["AAECAw==", "AAECAw", " AAEC\nAw== "])
def test_base64_is_read_leniently(text: str) -> None:
    """Missing padding and line breaks cost nothing to forgive."""
    assert decode_base64(text, "audio") == bytes(range(4))


@pytest.mark.parametrize("text", ["*", "A", "ÄÖ", "AA-_"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    """The error names the parameter."""
    with pytest.raises(ClientError) as caught:
        decode_base64(text, "audio")
    assert (caught.value.code, caught.value.param) == ("invalid_value", "audio")


def test_too_much_at_once_is_refused() -> None:
    """An append holds 15 MiB at most."""
    with pytest.raises(ClientError, match="too much audio"):
        decode_base64("AAAA" * (5 * 1024 * 1024 + 1), "audio")
