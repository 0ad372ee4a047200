"""What Python users import, and what exported checkpoints name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import millpond

NAMES = sorted(millpond.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_where_it_says_and_what_type_checkers_see(name: str) -> None:
    """The type checkers' imports and the table of homes say the same."""
    tree = ast.parse(Path(millpond.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    typed = {alias.name: node.module for node in imports for alias in node.names}
    assert millpond._HOMES[name] == typed[name]
    assert getattr(millpond, name).__name__ == name


def test_the_three_lists_agree() -> None:
    assert sorted(millpond._HOMES) == NAMES == sorted(dir(millpond))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'millpond' has no attribute 'Embeder'"):
        millpond.Embeder  # noqa: B018


@pytest.mark.slow
def test_a_checkpoint_that_names_our_module_does_not_import_the_server() -> None:
    program = "import sys; from millpond import LearnedPooling; print('service' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
