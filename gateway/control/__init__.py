"""The control plane: what is loaded, and what the server tells about itself."""
