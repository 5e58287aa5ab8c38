"""See tests/runs/fakes.py."""
