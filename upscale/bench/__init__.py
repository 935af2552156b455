"""Quantity quality and speed, and say how."""
