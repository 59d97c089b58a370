"""From evaluations to the table, the figures and the summary."""
