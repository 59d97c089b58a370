"""Measuring a model and its cuts: tasks, loss, speed."""
