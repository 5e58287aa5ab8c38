"""Data that the product ships: the lab model and its world, general prompts, measured figures."""
