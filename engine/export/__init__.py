"""Taking a run home: every form that other programs load, each loaded again before it counts."""
