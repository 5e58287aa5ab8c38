"""Getting a model, and the lineage that stages hand on."""
