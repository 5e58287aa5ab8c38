"""What makes it happen: data, models, runs, stages, backends, evaluation. Knows nothing of who watches."""
