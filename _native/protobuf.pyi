"""Protobuf's wire form, for the core's own modules alone: nothing here is called from Python."""
