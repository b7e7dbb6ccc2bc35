"""A table that prints anywhere: text with `str`, colour in a rich console, HTML in a notebook.

Every report of the package is one: `rows` hold plain values for programs, `cells` what is shown of
them. rich lays the text out, so widths and alignment are its business.
"""

from __future__ import annotations

import dataclasses
import html
import io
from typing import Any, Literal, NamedTuple

__all__ = ["Column", "Table"]

# Notes and warnings below a narrow table wrap here.
_TEXT_WIDTH = 88


class Column(NamedTuple):
    """The head of a column, to which side its cells are aligned, and whether they may wrap."""

    header: str
    justify: Literal["left", "right"] = "right"
    wrap: bool = False


@dataclasses.dataclass(frozen=True, repr=False)
class Table:
    """Rows of values with a text for each cell.

    `rows` are dicts of plain values for programs, `cells` what is shown of them, `notes` and
    `warnings` the lines below. `styles` may name a rich style for each row.

    >>> Table("", (Column("lam"),), ({"lam": 0.1},), (("0.1",),), warnings=("too small",))
    lam
    ───
    0.1
    warning: too small
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Any], ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        above = [Text(self.title, style="bold")] if self.title else []
        notes = [Text(note, style="dim") for note in self.notes]
        warnings = [Text(f"warning: {text}", style="yellow") for text in self.warnings]
        return Group(*above, self._grid(), *notes, *warnings)

    def _grid(self) -> Any:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in self.columns:
            grid.add_column(
                Text(column.header),
                justify=column.justify,
                no_wrap=not column.wrap,
                overflow="fold" if column.wrap else "ellipsis",
            )
        styles = self.styles or ("",) * len(self.cells)
        for row, style in zip(self.cells, styles):
            # Text, since a cell such as "[4, 6]" would else be read as markup.
            grid.add_row(*map(Text, row), style=style)
        return grid

    def __str__(self) -> str:
        from rich.console import Console

        plain = {"color_system": None, "force_terminal": False, "force_jupyter": False}
        wide = Console(width=10_000, file=io.StringIO(), **plain)
        width = max(_TEXT_WIDTH, wide.measure(self._grid()).maximum)
        out = io.StringIO()
        Console(file=out, width=width, legacy_windows=False, **plain).print(self, highlight=False)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(_html_cell("th", c.header, c.justify) for c in self.columns)
        body = "".join(
            "<tr>" + "".join(_html_cell("td", t, c.justify) for t, c in zip(row, self.columns)) + "</tr>"
            for row in self.cells
        )  # fmt: skip
        title = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        notes = "".join(f"<p>{html.escape(t)}</p>" for t in self.notes)
        warnings = "".join(f"<p><b>warning:</b> {html.escape(t)}</p>" for t in self.warnings)
        return (
            f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"{notes}{warnings}"
        )


def _html_cell(tag: str, text: str, justify: str) -> str:
    return f'<{tag} style="text-align:{justify}">{html.escape(text)}</{tag}>'
