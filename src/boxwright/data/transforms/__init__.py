"""Transforms of training and evaluation."""
