"""The metrics of the project, one definition each, and the gates that read them. Backend-neutral, no torch."""
