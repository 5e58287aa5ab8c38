"""Talking with a run's stages: a process of its own that holds the models, and what both sides of it agree on."""
