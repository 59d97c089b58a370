"""The results table as files: CSV to compute with, Markdown and HTML to be read."""

from __future__ import annotations

import math
from pathlib import Path

import jinja2
import pandas as pd

from ..errors import UserError
from ..layout import PRUNED
from ..resources import resource
from ..runtime.files import atomic_write
from .columns import SPEEDS, VARIANT
from .metrics import is_loss, metrics
from .text import markdown_table, si

TEMPLATE = resource("table.html")
TEXTS = set(VARIANT) - {"n"}  # the columns that are no numbers


def write(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table as the file's ending says: .csv (every digit that counts), .md or .html (to be read).
    Raises UserError for another ending."""
    writers = {".csv": to_csv, ".md": to_markdown, ".html": to_html}
    ending = Path(path).suffix
    if ending not in writers:
        raise UserError(f"cannot write a table to {path}: its name must end in {', '.join(writers)}")
    with atomic_write(path) as temporary:
        temporary.write_text(writers[ending](table))


def to_csv(table: pd.DataFrame) -> str:
    """Eight significant digits, so that equal runs give equal files."""
    return table.to_csv(index=False, float_format="%.8g", lineterminator="\n")


def to_markdown(table: pd.DataFrame) -> str:
    """A Markdown table of ``readable`` cells; text to the left, numbers to the right."""
    heads, rows = readable(table)
    cells = [[text for text, _ in row] for row in rows]
    return "".join(f"{line}\n" for line in markdown_table(heads, cells, set(heads) - TEXTS, padded=False))


def to_html(table: pd.DataFrame) -> str:
    """A page that stands alone (no network): the table, to sort, filter and download as CSV."""
    heads, rows = readable(table)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text())
    return template.render(heads=heads, rows=rows, texts=TEXTS, csv=to_csv(table))


def readable(table: pd.DataFrame) -> tuple[list[str], list[list[tuple[str, str | float]]]]:
    """Column heads and rows of (text, value to sort by): with units, rounded, value ± standard error. The
    unpruned model, which a table has for each strategy, is there once, by its own name."""
    if "n" in table and "treatment" in table:
        table = _unpruned_once(table)
    heads = {name: name for name in [*VARIANT, "layers"]} | {"fraction_removed": "removed"}
    for name in sorted(metrics(table), key=lambda name: not is_loss(table, name)):
        shown = [name, f"{name}_published", f"{name}_difference"]
        heads |= {column: column.replace("_", " ") for column in shown if column in table}
    heads |= {"parameters": "parameters", "bytes": "size", "memory_bytes": "memory"}
    heads |= {speed: f"{speed} (tokens/s)" for speed in SPEEDS} | {"distance": "distance"}
    heads = {name: head for name, head in heads.items() if name in table}
    rows = [[(_cell(row, name), row[name]) for name in heads] for row in table.to_dict("records")]
    return list(heads.values()), rows


def _unpruned_once(table: pd.DataFrame) -> pd.DataFrame:
    """A table in which each treatment of the full model has one row, without a strategy."""
    table = table[~((table["n"] == 0) & table.duplicated(["model", "n", "treatment"]))]
    full = table["n"] == 0
    return table.assign(
        strategy=table["strategy"].mask(full, ""),
        treatment=table["treatment"].mask(full & (table["treatment"] == PRUNED), "unpruned"),
    )


def _cell(row: dict, name: str) -> str:
    value = row[name]
    match name:
        case "fraction_removed":
            return f"{100 * value:.0f} %"
        case "bytes" | "memory_bytes":
            return si(value, "B")
        case "parameters" | "prefill" | "decode":
            return si(value)
    if isinstance(value, str | int):
        return str(value)
    if math.isnan(value):
        return ""
    if name.endswith("_difference"):
        return f"{value:+.3f}"
    stderr = row.get(f"{name}_stderr", math.nan)
    return f"{value:.3f}" if math.isnan(stderr) else f"{value:.3f} ± {stderr:.3f}"
