"""A tiny world of pictures: shapes, digits, colours and arrows, and everything that is not it."""
