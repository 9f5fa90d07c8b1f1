"""What the rest asks of the machine: whole files, progress, memory, devices, many processes."""
