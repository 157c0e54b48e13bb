"""Pictures of how queries are computed, and what they are drawn from."""

import json
import xml.etree.ElementTree as ET

import pytest

import windrow
from windrow import _drawing, col

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def frame(client):
    client.set(small_input="1B", partitions=3)
    client.register("rows", windrow.Table.from_dict({"n": list(range(1000)), "k": ["a", "b"] * 500}))
    return client.table("rows")


def boxes(svg):
    return ET.fromstring(svg).findall(f".//{SVG}rect")


def arrows(svg):
    return [path for path in ET.fromstring(svg).iter(f"{SVG}path") if path.get("marker-end")]


def texts(svg):
    return [text.text for text in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_picture_has_a_box_for_each_stage_and_an_arrow_for_each_exchange(frame, tmp_path):
    made = frame.group_by("k").agg(col("n").sum()).sort("k")
    stages = json.loads(made.explain(format="json"))
    file = tmp_path / "plan.svg"
    svg = made.visualize(file).svg
    assert file.read_text() == svg == made.visualize()._repr_svg_()
    assert len(boxes(svg)) == len(stages) > 1
    assert len(arrows(svg)) == sum(len(stage["inputs"]) for stage in stages) >= 1
    for stage in stages:
        assert any(text.startswith(f"Stage {stage['stage']}:") for text in texts(svg))
    assert any("AggregateExec" in text for text in texts(svg))
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_boxes_do_not_overlap_and_lie_within_the_picture(frame):
    joined = frame.join(frame.group_by("k").agg(m=col("n").max()), "k").group_by("m").count().sort("m")
    svg = joined.visualize().svg
    picture = ET.fromstring(svg)
    found = [tuple(float(box.get(name)) for name in ("x", "y", "width", "height")) for box in boxes(svg)]
    for at, (x, y, wide, high) in enumerate(found):
        assert x >= 0 and y >= 0
        assert x + wide <= float(picture.get("width")) + 1 and y + high <= float(picture.get("height")) + 1
        for left, top, width, height in found[:at]:
            assert x + wide <= left or left + width <= x or y + high <= top or top + height <= y


def test_a_picture_of_what_ran_and_of_several(frame, tmp_path):
    made = frame.group_by("k").count()
    assert any("rows=" in text for text in texts(made.visualize(analyze=True).svg))
    both = windrow.visualize(made, frame.sort("n"), filename=tmp_path / "both.svg")
    assert {"Frame 1", "Frame 2"} <= set(texts(both.svg))
    assert (tmp_path / "both.svg").read_text() == both.svg
    assert repr(both).startswith("windrow.Drawing")


def test_drawing_runs_nothing(frame, client):
    before = len(client.queries())
    frame.group_by("k").count().visualize()
    frame.explain(stages=True)
    assert len(client.queries()) == before


def test_what_is_in_names_is_no_markup(client):
    evil = "</text><script>alert(1)</script>&\x1b"
    frame = client.from_dict({evil: [1]})
    svg = frame.filter(col(evil) > 0).visualize().svg
    ET.fromstring(svg)
    assert "<script" not in svg and "\x1b" not in svg


def chain(stages, operators):
    text = []
    for number in reversed(range(stages)):
        text.append(f"Stage {number}: 4 partitions -> " + ("result" if number == stages - 1 else "hash exchange to 4"))
        text += [f"  {'  ' * depth}FilterExec: n@0 > {depth}" for depth in range(operators - 1)]
        text.append(f"  StageInputExec: stage={number - 1}, partitions=4" if number else "  DataSourceExec: rows")
    return [("stages", "\n".join(text))]


def test_large_plans_are_folded():
    small = _drawing.Drawing({"": chain(10, 20)}).svg
    assert len(texts(small)) == 10 * 21
    folded = _drawing.Drawing({"": chain(50, 20)}).svg
    assert len(boxes(folded)) == 50 and len(arrows(folded)) == 49
    assert "FilterExec and 19 more operators" in texts(folded)
    huge = _drawing.Drawing({"": chain(5000, 4)}).svg
    assert len(boxes(huge)) == 5000  # one below the other: a level each
    wide = [("stages", "\n".join(
        ["Stage 3000: 1 partition -> result"]
        + [f"  StageInputExec: stage={number}" for number in range(3000)]
        + [line for number in range(3000) for line in (f"Stage {number}: 1 partition -> whole", "  DataSourceExec: rows")]
    ))]  # fmt: skip
    svg = _drawing.Drawing({"": wide}).svg
    assert len(boxes(svg)) == 2 and len(arrows(svg)) == 1 and len(svg) < 100_000
    assert "3,000 stages, 3,000 operators" in texts(svg)


def test_explain_gives_stages_text_and_json(frame):
    made = frame.group_by("k").agg(col("n").sum())
    whole, stages = made.explain(), made.explain(stages=True)
    assert whole.startswith("logical plan") and stages.startswith("stages\nStage") and stages in whole
    assert "rows=2" in made.explain(stages=True, analyze=True)
    [last, *others] = json.loads(made.explain(format="json"))
    assert last["title"].endswith("result") and set(last["inputs"]) <= {stage["stage"] for stage in others}
    assert last["operators"][0]["depth"] == 0
    with pytest.raises(windrow.InvalidConfigError, match="format"):
        made.explain(format="xml")
