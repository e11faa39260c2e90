"""Traces: what happens in sessions as spans of OpenTelemetry."""
