"""Read by every Python of the test on Slurm, whose one card is none: torch computes on the CPU instead."""

from deeper_layers.runtime import gpus as devices

devices.claimed = lambda: None
