"""Numbers and tables as text. No torch, no pandas: the plan of a study writes with this too."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..pruning.layer_set import LayerSet

PREFIXES = ("", "k", "M", "G", "T")


def si(value: float, unit: str = "", fixed: bool = True) -> str:
    """Three significant digits, an SI prefix and a unit: ``si(1_360_000, "B")`` is ``1.36 MB``.

    ``fixed`` keeps zeros at the end, so that a column has equally many digits: 1.00 M; else 1 M.
    """
    prefix = 0
    while value >= 999.5 and prefix < len(PREFIXES) - 1:
        value /= 1000
        prefix += 1
    digits = f"{value:#.3g}".rstrip(".") if fixed else f"{value:.3g}"
    return f"{digits} {PREFIXES[prefix]}{unit}".rstrip()


def markdown_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = (), padded: bool = True
) -> list[str]:
    """The lines of a Markdown table.

    Args:
        heads: a head for each column.
        rows: the cells of each row.
        right: the heads of the columns whose cells stand to the right.
        padded: make each column as wide as its longest cell, to be read in a terminal too.
    """
    widths = [max(map(len, column)) if padded else 0 for column in zip(heads, *rows, strict=True)]
    sides = [head in right for head in heads]
    columns = list(zip(widths, sides, strict=True))

    def line(cells: Sequence[str]) -> str:
        aligned = (
            cell.rjust(width) if side else cell.ljust(width)
            for cell, (width, side) in zip(cells, columns, strict=True)
        )
        return f"| {' | '.join(aligned)} |"

    rules = ["-" * (width - side if padded else 3) + ":" * side for width, side in columns]
    return [line(heads), f"| {' | '.join(rules)} |", *map(line, rows)]


def and_list(words: Sequence[str]) -> str:
    """Words as a sentence has them: a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def layers_in_words(block: LayerSet) -> str:
    """The layers that a cut lacks: ``21 to 28``, ``3 and 7 to 9``."""
    return and_list([str(first) if first == last else f"{first} to {last}" for first, last in block.runs])
