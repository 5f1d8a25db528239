"""Layers: modules that own parameters, and ``functional``, the functions that they call."""
