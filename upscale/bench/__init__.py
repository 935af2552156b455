"""Measure quality and speed, and say how."""
