"""The data plane: admission, routing, and the way from a request to a lane."""
