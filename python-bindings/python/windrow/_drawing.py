"""How queries are computed, as one picture: an SVG that needs nothing else, drawn from what EXPLAIN says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from windrow import _text

# Operators, and stages, above which a picture shows sums instead.
_OPERATORS_MAX = 300
_STAGES_MAX = 100

# The sizes of things, in pixels.
_LINE, _CHARACTER, _PAD, _GAP = 16, 6.7, 10, 44
# Characters of a line that are shown.
_WIDTH = 72

_STAGE = re.compile(r"Stage (\d+): (\d+) partitions? -> (.*)")
_INPUT = re.compile(r"\bstage=(\d+)")


@dataclass(frozen=True)
class Operator:
    """One line of a plan.

    Attributes:
        depth: how far below the first one it is.
        text: what it does.
    """

    depth: int
    text: str


@dataclass
class Stage:
    """What runs between two exchanges; of a plan that is not divided, all of it.

    Attributes:
        number: the stage's number, ``None`` for a logical plan.
        title: partitions and where they go.
        inputs: the stages that it reads.
        operators: the operators, the last one to compute first.
    """

    number: int | None
    title: str
    inputs: list[int] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)


def stages_of(rows: Sequence[tuple[str, str]]) -> list[Stage]:
    """The stages of what EXPLAIN says; of a statement that has none, its logical plan as one."""
    for kind, text in reversed(rows):
        if kind.startswith("stages"):
            return _stages(text)
    return [Stage(None, kind, [], _operators(text.splitlines())) for kind, text in rows[-1:]]


def _stages(text: str) -> list[Stage]:
    found: list[Stage] = []
    lines: list[str] = []

    def end() -> None:
        if found:
            found[-1].operators = _operators(lines)
            reads = (_INPUT.findall(one.text) for one in found[-1].operators if one.text.startswith("StageInputExec"))
            found[-1].inputs = sorted({int(number) for numbers in reads for number in numbers})
        lines.clear()

    for line in text.splitlines():
        if head := _STAGE.fullmatch(line):
            end()
            number, partitions, output = head.groups()
            found.append(Stage(int(number), f"{_text.plural(int(partitions), 'partition')} \N{RIGHTWARDS ARROW} {output}"))
        else:
            lines.append(line)
    end()
    return found


def _operators(lines: Sequence[str]) -> list[Operator]:
    found = [Operator((len(line) - len(line.lstrip())) // 2, line.strip()) for line in lines if line.strip()]
    least = min((one.depth for one in found), default=0)
    return [Operator(one.depth - least, one.text) for one in found]


def as_json(rows: Sequence[tuple[str, str]]) -> str:
    """The stages as JSON."""
    stages = [
        {
            "stage": stage.number,
            "title": stage.title,
            "inputs": stage.inputs,
            "operators": [{"depth": one.depth, "text": one.text} for one in stage.operators],
        }
        for stage in stages_of(rows)
    ]
    return json.dumps(stages, indent=1, ensure_ascii=False)


class Drawing:
    """A picture of how queries are computed. Notebooks show it; :attr:`svg` is its text."""

    def __init__(self, plans: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        #: The picture as SVG.
        self.svg = _svg({name: stages_of(rows) for name, rows in plans.items()})

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Writes the picture into a file."""
        with open(filename, "w", encoding="utf-8") as file:
            file.write(self.svg)

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"windrow.Drawing [{len(self.svg):,} characters of SVG]  .save(filename) writes it"


@dataclass(frozen=True)
class _Box:
    title: str
    lines: Sequence[tuple[int, str]]
    hint: str

    @property
    def width(self) -> float:
        longest = max([len(self.title), *(len(line) + 2 * depth for depth, line in self.lines)])
        return longest * _CHARACTER + 2 * _PAD

    @property
    def height(self) -> float:
        return (1 + len(self.lines)) * _LINE + 2 * _PAD


def _svg(plans: Mapping[str, Sequence[Stage]]) -> str:
    operators = sum(len(stage.operators) for stages in plans.values() for stage in stages)
    folds = operators > _OPERATORS_MAX
    parts: list[str] = []
    left, height = 0.0, 0.0
    for name, stages in plans.items():
        drawn, wide, high = _plan(name, stages, folds)
        parts.append(f'<g transform="translate({left:.0f} 0)">{drawn}</g>')
        left, height = left + wide + _GAP, max(height, high)
    width = max(left - _GAP, 1.0)
    # Notebooks put the picture into their page: nothing else there may change.
    style = (
        ".windrow-plan text{font:12px monospace;fill:#222;white-space:pre}.windrow-plan .h{font-weight:bold}"
        ".windrow-plan rect{fill:#f6f8fa;stroke:#57606a}.windrow-plan path{fill:none;stroke:#57606a}"
    )
    arrow = (
        '<marker id="windrow-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" style="fill:#57606a;stroke:none"/></marker>'
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" class="windrow-plan" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"<style>{style}</style><defs>{arrow}</defs>{''.join(parts)}</svg>"
    )


def _plan(name: str, stages: Sequence[Stage], folds: bool) -> tuple[str, float, float]:
    """One plan, the result on top: its text, width and height."""
    levels = _levels(stages)
    if len(stages) > _STAGES_MAX:
        rows, edges = _sums(levels)
    else:
        rows = [{stage.number: _box(stage, folds) for stage in level} for level in levels]
        edges = [(stage.number, read) for stage in stages for read in stage.inputs]
    width = max([sum(box.width + _GAP for box in row.values()) - _GAP for row in rows] + [len(name) * _CHARACTER])
    top, places, parts = 0.0, dict[int | None, tuple[float, float, _Box]](), list[str]()
    if name:
        parts.append(f'<text class="h" x="0" y="{_LINE}">{_safe(name)}</text>')
        top = _LINE + _PAD
    for row in rows:
        left = (width - (sum(box.width + _GAP for box in row.values()) - _GAP)) / 2
        for number, box in row.items():
            places[number] = (left, top, box)
            parts.append(_drawn(box, left, top))
            left += box.width + _GAP
        top += max(box.height for box in row.values()) + _GAP
    for reader, read in edges:
        if reader in places and read in places:
            parts.append(_edge(places[read], places[reader]))
    return "".join(parts), width + 2, max(top - _GAP, 0.0) + 2


def _levels(stages: Sequence[Stage]) -> list[list[Stage]]:
    """The stages by how far they are from the result: each is below all that read it."""
    known = {stage.number: stage for stage in stages}
    level = dict.fromkeys(known, 0)
    # A stage reads those with smaller numbers only.
    for number in sorted(known, key=lambda number: -1 if number is None else number, reverse=True):
        for read in known[number].inputs:
            if read in level:
                level[read] = max(level[read], level[number] + 1)
    rows: list[list[Stage]] = [[] for _ in range(max(level.values(), default=0) + 1)]
    for stage in sorted(stages, key=lambda stage: -1 if stage.number is None else stage.number):
        rows[level[stage.number]].append(stage)
    return rows


def _sums(levels: Sequence[Sequence[Stage]]) -> tuple[list[dict[int | None, _Box]], list[tuple[int | None, int]]]:
    """A box for each level, of plans with very many stages."""
    rows: list[dict[int | None, _Box]] = []
    for at, level in enumerate(levels):
        operators = sum(len(stage.operators) for stage in level)
        numbers = [str(stage.number) for stage in level]
        text = f"{_text.plural(len(level), 'stage')}, {_text.plural(operators, 'operator')}"
        rows.append({at: _Box(text, [], "stages " + ", ".join(numbers[:50]))})
    return rows, [(at, at + 1) for at in range(len(rows) - 1)]


def _box(stage: Stage, folds: bool) -> _Box:
    title = stage.title if stage.number is None else f"Stage {stage.number}: {stage.title}"
    hint = "\n".join("  " * one.depth + one.text for one in stage.operators[:50])
    if folds:
        first = _short(stage.operators[0].text.partition(":")[0]) if stage.operators else ""
        return _Box(_short(title), [(0, f"{first} and {_text.plural(max(0, len(stage.operators) - 1), 'more operator')}")], hint)
    return _Box(_short(title), [(one.depth, _short(one.text)) for one in stage.operators], hint)


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _safe(text: str) -> str:
    return escape(_text.visible(text))


def _drawn(box: _Box, left: float, top: float) -> str:
    hint = "\n".join(_safe(line[:500]) for line in box.hint.splitlines())
    parts = [f"<g><title>{hint}</title>"]
    parts.append(f'<rect x="{left + 1:.1f}" y="{top + 1:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="5"/>')
    baseline = top + _PAD + _LINE * 0.8
    parts.append(f'<text class="h" x="{left + _PAD:.1f}" y="{baseline:.1f}">{_safe(box.title)}</text>')
    for at, (depth, line) in enumerate(box.lines, start=1):
        x = left + _PAD + 2 * depth * _CHARACTER
        parts.append(f'<text x="{x:.1f}" y="{baseline + at * _LINE:.1f}">{_safe(line)}</text>')
    return "".join(parts) + "</g>"


def _edge(low: tuple[float, float, _Box], high: tuple[float, float, _Box]) -> str:
    """An arrow from the stage that is read to the one that reads it."""
    x1, y1 = low[0] + low[2].width / 2, low[1]
    x2, y2 = high[0] + high[2].width / 2, high[1] + high[2].height + 2
    middle = (y1 + y2) / 2
    curve = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}"
    return f'<path d="{curve}" marker-end="url(#windrow-arrow)"/>'
