"""Bytes to types and back: the HTTP and gRPC fronts. No policy lives here."""
