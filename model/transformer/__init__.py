"""The unified transformer, its depth transformer, and how its linears run."""
