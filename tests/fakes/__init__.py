"""Small real stand-ins that tests of several rooms share."""
