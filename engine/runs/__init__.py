"""Runs: their directory, event log, state, lock, control, checkpoints and supervisor. No training library."""
