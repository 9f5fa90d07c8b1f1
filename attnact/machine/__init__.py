"""What the rest asks of the machine: whole files, progress, Ctrl-C, memory, devices, processes."""
