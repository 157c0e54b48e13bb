"""How things look: sizes, tables in text and in HTML. Names and values come from anywhere, so everything is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from unicodedata import east_asian_width

# Rows that a table shows.
ROWS_SHOWN = 10


def size(number: int) -> str:
    """Bytes for people: ``8.36 GB``."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{int(value)} B" if unit == "B" else f"{value:.2f} {unit}"
        value /= 1000
    raise AssertionError("the last unit fits")


def plural(count: int, what: str) -> str:
    """``1 row``, ``2 rows``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def visible(text: str) -> str:
    """``text`` without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _width(text: str) -> int:
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int, right: bool) -> str:
    fill = " " * (width - _width(text))
    return fill + text if right else text + fill


def grid(names: Sequence[str], types: Sequence[str], rows: Sequence[Sequence[str | None]], rest: int) -> str:
    """A table of text: names, types, rows, and how many rows are not shown."""
    cells = [[("null" if cell is None else cell) for cell in row] for row in rows]
    heads = [visible(name) for name in names]
    short = [visible(of) for of in types]
    numbers = [of.startswith(("Int", "UInt", "Float", "Decimal")) for of in types]
    widths = [
        max([_width(heads[at]), _width(short[at]), *(_width(row[at]) for row in cells)], default=0) for at in range(len(heads))
    ]

    def line(parts: Iterable[str], left: str, between: str, right: str) -> str:
        return left + between.join(parts) + right

    def row(parts: Sequence[str]) -> str:
        return line((f" {_pad(part, widths[at], numbers[at])} " for at, part in enumerate(parts)), "\u2502", "\u2502", "\u2502")

    def rule(left: str, between: str, right: str) -> str:
        return line(("\u2500" * (width + 2) for width in widths), left, between, right)

    lines = [rule("\u250c", "\u252c", "\u2510"), row(heads), row(short), rule("\u251c", "\u253c", "\u2524")]
    lines += [row(one) for one in cells]
    lines.append(rule("\u2514", "\u2534", "\u2518"))
    if rest > 0:
        lines.append(f"... {plural(rest, 'more row')}")
    return "\n".join(lines)


def html_grid(names: Sequence[str], types: Sequence[str], rows: Sequence[Sequence[str | None]], caption: str) -> str:
    """A table for notebooks."""
    heads = "".join(
        f"<th>{escape(visible(name))}<br><small>{escape(visible(of))}</small></th>" for name, of in zip(names, types, strict=True)
    )
    body = "".join(
        "<tr>" + "".join("<td><i>null</i></td>" if cell is None else f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table><p>{escape(caption)}</p>"


def facts(title: str, pairs: Sequence[tuple[str, object]]) -> str:
    """A title and a line for each fact."""
    return "\n".join([title, *(f"  {name}: {visible(str(value))}" for name, value in pairs)])


def html_facts(title: str, pairs: Sequence[tuple[str, object]]) -> str:
    """The same for notebooks."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(visible(str(value)))}</td></tr>"
        for name, value in pairs
    )
    return f"<div><h3>{escape(title)}</h3><table>{rows}</table></div>"
