"""Typed contents, for the core's own modules alone: nothing here is called from Python."""
