"""Monitors of the prediction stream: has the world moved away from the training data?"""
