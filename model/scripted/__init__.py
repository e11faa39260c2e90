"""Follow a script instead of a model: for tests of applications, and of the gateway."""
