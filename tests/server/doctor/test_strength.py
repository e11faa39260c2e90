"""What looks like a key that somebody made up."""

import random

import pytest

from server.doctor.strength import random_bits


@pytest.mark.parametrize(
    "text",
    [
        "change-me-change-me",
        "not-needed-on-loopback",
        "my-secret-api-key-1",
        "0123456789abcdef",
        "fedcba9876543210",
        "1234567812345678",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "Password1Password1",
    ],
)
def test_words_and_patterns_are_not_random(text: str) -> None:
    """They are what somebody tries first."""
    assert random_bits(text) < 30


@pytest.mark.parametrize(("num_bytes", "least", "most"), [(8, 35, 64), (16, 90, 128)])
def test_what_a_generator_made_is(num_bytes: int, least: int, most: int) -> None:
    """Hexadecimal digits have almost four bits each."""
    for seed in range(50):
        bits = random_bits(random.Random(seed).randbytes(num_bytes).hex())
        assert least < bits <= most
