"""Events are written as JSON, whatever is in them."""

import json

from hypothesis import given
from hypothesis import strategies as st

from server.protocol.wire.write import encode

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Also half surrogate pairs.
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), _VALUES))
def test_what_is_written_is_read_again(event: dict[str, object]) -> None:
    """Integers of any length, all characters, all depths."""
    assert json.loads(encode(event)) == event


def test_it_has_no_spaces() -> None:
    """Only those in its strings."""
    assert encode({"a": [1, "b c"], "d": None}) == '{"a":[1,"b c"],"d":null}'


def test_half_a_surrogate_pair_is_escaped() -> None:
    """UTF-8 has no such thing."""
    assert encode({"a": "\ud800"}) == r'{"a":"\ud800"}'
