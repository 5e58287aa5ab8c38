"""Rebuild the lab: ``python -m assets.lab.make``. The only room outside engine/backends that trains."""
