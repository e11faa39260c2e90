"""Arithmetic of whole numbers that sizes of tensors, pages and launches are worked out with."""


def ceil_div(value: int, divisor: int) -> int:
    """Return `value / divisor`, rounded up; `divisor` is positive."""
    return -(-value // divisor)
