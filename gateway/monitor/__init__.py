"""Consumers of the prediction stream."""
