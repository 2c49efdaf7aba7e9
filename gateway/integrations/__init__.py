"""Thin, optional bridges to outside tools."""
