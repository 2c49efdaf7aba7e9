"""Versions come, go and change places under load, on a real gateway."""
