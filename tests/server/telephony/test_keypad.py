"""When keys are at their end."""

from server.telephony.keypad import MAX_KEYS, Keypad


def test_a_hash_ends_them() -> None:
    """It is not one of them, unless it is alone."""
    keypad = Keypad(2.0)
    assert [keypad.press(digit, 10.0) for digit in "4*2#"] == [None, None, None, "4*2"]
    assert keypad.due_s is None
    assert keypad.press("#", 11.0) == "#"


def test_a_pause_ends_them() -> None:
    """Counted from the last one."""
    keypad = Keypad(2.0)
    keypad.press("4", 10.0)
    keypad.press("2", 11.5)
    assert keypad.due_s == 13.5
    assert keypad.due(13.4) is None
    assert keypad.due(13.5) == "42"
    assert keypad.due(20.0) is None


def test_there_are_so_many() -> None:
    """Somebody who leans on a key sends a text all the same."""
    keypad = Keypad(2.0)
    texts = [keypad.press("1", 0.0) for _ in range(MAX_KEYS)]
    assert texts[-1] == "1" * MAX_KEYS
    assert texts[:-1] == [None] * (MAX_KEYS - 1)
