"""Measure how many conversations this machine holds, and keep what was found for the server."""
