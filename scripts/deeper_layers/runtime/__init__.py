"""What every program needs whatever it computes: command line, progress, files, GPUs, provenance."""
