"""What may hang, crash or eat the memory, and so runs in a process that can be killed (workers.py).

Every function takes and gives plain values: it is called across a pipe.
"""
