"""Draw a figure by its name, in the style that all figures share, and save it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from ...errors import UserError
from ...runtime.files import atomic_write
from .registry import FIGURES
from .select import Selection
from .style import STYLE

SCREEN = 1.5  # how much larger than on paper a figure is on a screen


def draw(name: str, data: Mapping[str, pd.DataFrame] | pd.DataFrame | Selection) -> Figure:
    """The figure of this name in the registry.

    Args:
        name: a key of ``registry.FIGURES``.
        data: what such a figure is drawn from, see ``registry.FigureEntry``.

    Raises:
        UserError: if the data lack what the figure shows.
    """
    module = import_module(f".{FIGURES[name].module}", __package__)
    with matplotlib.rc_context(STYLE):
        return getattr(module, name.replace("-", "_"))(data)


def save(figure: Figure, path: str | Path) -> None:
    """Write svg, pdf or png, as the file's ending says; equal figures give equal bytes. An svg, which is for
    screens, is shown larger than a column of paper. Raises UserError for another ending."""
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
    ending = Path(path).suffix
    if ending not in undated:
        raise UserError(f"cannot draw {path}: its name must end in {', '.join(undated)}")
    with atomic_write(path) as temporary, matplotlib.rc_context(STYLE):
        figure.savefig(temporary, format=ending[1:], metadata=undated[ending])
        if ending == ".svg":
            temporary.write_text(_enlarged(temporary.read_text()))


def _enlarged(svg: str) -> str:
    """The same drawing at ``SCREEN`` times its size, which only its head states."""
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    width, height = (SCREEN * float(length) for length in size.groups())
    return svg.replace(size[0], f'width="{width:g}pt" height="{height:g}pt"', 1)
