"""What acts on a model without being in its weights, as files and mathematics that every backend shares: edits, vectors,
the directions they are made of, and the benches that try them. Arrays are numpy's; nothing here imports a framework."""
