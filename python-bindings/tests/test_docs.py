"""What is written is true: doc strings, README, stubs."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import windrow

README = Path(__file__).parent.parent / "README.md"
MODULES = [one.name for one in pkgutil.iter_modules(windrow.__path__) if not one.name.startswith("__")]


def test_the_package_is_the_installed_one():
    assert Path(windrow.__file__).parent.parent.name == "site-packages"
    assert (Path(windrow.__file__).parent / "py.typed").exists()
    assert (Path(windrow.__file__).parent / "_windrow.pyi").exists()


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_doc_strings_run(name):
    module = importlib.import_module(f"windrow.{name}")
    result = doctest.testmod(module)
    assert result.failed == 0


def test_the_example_of_the_package_runs():
    assert doctest.testmod(windrow).failed == 0


def test_the_examples_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(examples) >= 3
    for example in examples:
        exec(compile(example, str(README), "exec"), {})


def test_everything_public_says_what_it_does():
    for name in windrow.__all__:
        one = getattr(windrow, name)
        if name.startswith("__"):
            continue
        assert inspect.getdoc(one), name
        if inspect.isclass(one) and one.__module__.startswith("windrow"):
            for attribute, value in vars(one).items():
                if not attribute.startswith("_") and (callable(value) or isinstance(value, property)):
                    assert inspect.getdoc(getattr(one, attribute)), f"{name}.{attribute}"


def test_the_stub_is_true_of_the_extension_module():
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "windrow._windrow"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_is_typed(tmp_path):
    # Not where it is installed: there mypy would take what lies beside it for the package's own.
    folder = shutil.copytree(Path(windrow.__file__).parent, tmp_path / "windrow")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    settings = Path(__file__).parents[1] / "pyproject.toml"
    command += ["--disable-error-code=import-untyped", "--config-file", str(settings), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_modules_parse_and_say_what_they_hold():
    for file in Path(windrow.__file__).parent.glob("*.py"):
        assert ast.get_docstring(ast.parse(file.read_text())), file.name
