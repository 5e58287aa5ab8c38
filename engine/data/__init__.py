"""Read a dataset, recognise its form, check it, split it."""
