"""Where model-written code and users' verifiers run: bounded in time, memory, processes, output, files and network."""
