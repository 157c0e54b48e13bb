"""The README's blocks of Python, run one after the other as they are written, but for the address and the token."""

import os
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def token(monkeypatch):
    if "WINDROW_TOKEN" not in os.environ:
        monkeypatch.setenv("WINDROW_TOKEN", "")


def test_the_blocks_run_as_written(url, token, capsys):
    text = README.read_text().replace("grpc://127.0.0.1:8815", url)
    # The package has its own tests.
    text = text[text.index("## From other programs") :]
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {}
    printed = []
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
        printed.append(capsys.readouterr().out)
    names["connection"].close()
    adbc, polars, pandas = printed
    assert "14" in adbc and "42" in adbc
    assert "1000" in polars and "333833500" in polars
    assert "2.5" in pandas and "Oslo" in pandas
