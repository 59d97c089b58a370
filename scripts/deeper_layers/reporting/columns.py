"""The columns of the results table that are no metrics. No torch, no pandas."""

VARIANT = ["model", "strategy", "n", "block", "treatment"]
SIZE = ["n_layers", "layers", "fraction_removed", "parameters", "bytes", "distance"]
LEVELS = ["model", "metric", "level", "value"]  # of levels.csv
SPEEDS = ["prefill", "decode"]  # tokens per second, in speed.csv and in the table
MEASURED = ["memory_bytes", *[speed + end for speed in SPEEDS for end in ("", "_low", "_high")]]
