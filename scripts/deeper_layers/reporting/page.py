"""A page that stands alone (no network) of the Markdown that this workflow writes: headings, paragraphs,
tables and commands, with **bold** and `code` inside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

STYLE = """
  :root { color-scheme: light dark; --line: light-dark(#d9dde3, #3a3f47);
          --shade: light-dark(#f4f6f8, #23272e) }
  body { font: 14px/1.5 system-ui, sans-serif; margin: 1.5rem auto; padding: 0 1.5rem; max-width: 62rem;
         background: light-dark(#fff, #17191d) }
  table { border-collapse: collapse; margin: .8rem 0 } th { background: var(--shade) }
  th, td { border: 1px solid var(--line); padding: .25rem .7rem; font-variant-numeric: tabular-nums }
  pre, code { background: var(--shade); border-radius: 4px } pre { padding: .6rem .8rem; overflow: auto }
"""


def to_html(markdown: str, title: str) -> str:
    """The page."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{''.join(_parts(markdown))}</body>\n</html>\n"
    )


def _parts(markdown: str) -> Iterator[str]:
    commands = re.split(r"^```\w*\n(.*?)^```\n", markdown, flags=re.MULTILINE | re.DOTALL)
    for i, text in enumerate(commands):
        if i % 2:
            yield f"<pre>{escape(text)}</pre>\n"
            continue
        for paragraph in filter(None, map(str.strip, re.split(r"\n\s*\n", text))):
            if heading := re.fullmatch(r"(#+) (.*)", paragraph):
                level = len(heading[1])
                yield f"<h{level}>{_inline(heading[2])}</h{level}>\n"
            elif paragraph.startswith("|"):
                yield _table(paragraph.splitlines())
            else:
                yield f"<p>{_inline(paragraph)}</p>\n"


def _table(lines: list[str]) -> str:
    head, rules, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    sides = ["right" if rule.endswith(":") else "left" for rule in rules]

    def row(cells: list[str], tag: str) -> str:
        pairs = zip(cells, sides, strict=True)
        return "".join(f'<{tag} style="text-align: {side}">{_inline(cell)}</{tag}>' for cell, side in pairs)

    body = "".join(f"<tr>{row(cells, 'td')}</tr>\n" for cells in rows)
    return f"<table>\n<tr>{row(head, 'th')}</tr>\n{body}</table>\n"


def _inline(text: str) -> str:
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)
