"""What a study asks for and what it costs, read while Snakemake reads the Snakefile. No torch."""
