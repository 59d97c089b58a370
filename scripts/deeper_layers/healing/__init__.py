"""Healing a cut model: the methods, and what trainings that may be killed share."""
