"""What a person sees: the command line and the views of a run. Never imports a training library."""
