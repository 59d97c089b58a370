"""The data files of the workflow (``resources/``): tables of the paper, templates, tasks."""

from __future__ import annotations

from pathlib import Path

RESOURCES = Path(__file__).resolve().parents[2] / "resources"


def resource(name: str) -> Path:
    """The path of a file or folder of ``resources/``. Called with a plain text, which ``code_hash`` reads:
    a changed file then reruns the stages whose code asks for it."""
    return RESOURCES / name
