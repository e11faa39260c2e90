"""By the words of a reply it is known whether the model can answer."""

import pytest

from server.protocol.delegate.policy import DelegatePolicy, Standing, plain_phrases

POLICY = DelegatePolicy(phrases=plain_phrases(["Sorry, I do not know that.", "No idea", "..."]))


@pytest.mark.parametrize(
    ("said", "standing"),
    [
        ("", "open"),
        ("sor", "open"),
        ("Sorry, I do not", "open"),
        ("sorry i do not know that", "unable"),
        ("Sorry — I do not know that, friend", "unable"),
        ("sorry i do not know thatch", "able"),
        ("sorry i am late", "able"),
        ("no idea", "unable"),
        ("hello", "able"),
    ],
)
def test_words_tell(said: str, standing: Standing) -> None:
    """Signs and capitals do not matter, ends of words do."""
    assert POLICY.standing(said) == standing


def test_without_phrases_every_model_is_able() -> None:
    """Nothing is kept back."""
    assert DelegatePolicy().standing("") == "able"
