"""Benchmarks and load tests: ``python -m loadtests.bench``, ``python -m loadtests.memory``."""
