"""The lab: a small model, the world it knows, and the data that every method trains on."""
