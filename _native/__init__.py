"""The Cython core: batching and wire codecs. Imports nothing of ``gateway``."""
