"""Runnable examples: ``python -m examples.build_models``, ``python -m examples.demo``."""
