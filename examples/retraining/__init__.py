"""Drift, an alert, retraining, and back: the loop of a model's life, once around.

``python -m examples.retraining`` walks through it. ``scans.py`` is the world, ``versions.py`` makes
versions of the model, ``retrain.py`` is what the action starts.
"""
