"""The settings of every program and every section of the configuration: type, default, meaning and bounds.

A setting is declared here once. From the classes are made the command-line options (``runtime.cli``), the
schema of the configuration (``json_schema``) with its page docs/config.md, and the checks of a study, so that
what a program would refuse is refused while Snakemake reads the configuration. No torch.
"""
