"""The prediction stream: finished batches, published to whoever watches or carries them away."""
