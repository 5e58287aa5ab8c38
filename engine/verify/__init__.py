"""Verifiers: what decides whether a completion is right, preferred or broken. Backend-neutral, no torch."""
