"""Attention over a paged cache of keys and values: reference, and the checked public call."""
