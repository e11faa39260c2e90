"""One script a question: a correctness gate first, then a table, then one line of JSON."""
