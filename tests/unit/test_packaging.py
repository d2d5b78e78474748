"""What is installed is what pyproject.toml says, and typed."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points, metadata, version
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import resilience

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
PACKAGES = [Path(path).name for path in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]


def test_every_package_of_the_tree_is_in_the_wheel() -> None:
    found = {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}
    assert set(PACKAGES) == found | {"resilience"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (files(package) / "py.typed").is_file()


def test_version_is_the_distribution_s() -> None:
    assert version("resilience-framework") == resilience.__version__


def test_every_package_is_measured_and_its_paths_are_mapped() -> None:
    coverage = PYPROJECT["tool"]["coverage"]
    assert set(coverage["run"]["source_pkgs"]) == set(PACKAGES) == set(coverage["paths"])


def test_every_package_has_its_import_contract() -> None:
    linter = PYPROJECT["tool"]["importlinter"]
    contracts = {contract["id"]: contract for contract in linter["contracts"]}
    plugins = sorted(set(PACKAGES) - {"resilience"})
    assert set(linter["root_packages"]) == set(PACKAGES)
    assert contracts["core"]["forbidden_modules"] == contracts["plugins"]["modules"] == plugins
    assert contracts["public"]["source_modules"] == plugins


@pytest.mark.parametrize("group", PROJECT["entry-points"])
def test_entry_points_load(group: str) -> None:
    ours: dict[str, str] = PROJECT["entry-points"][group]
    found = {point.name: point for point in entry_points(group=group) if point.value in ours.values()}
    assert {name: point.value for name, point in found.items()} == ours
    for point in found.values():
        assert isinstance(point.load(), ModuleType if group == "pytest11" else type)


def test_dependencies_are_three() -> None:
    required = [
        name for name in metadata("resilience-framework").get_all("Requires-Dist", []) if "extra ==" not in name
    ]
    assert {re.split(r"[<>=~!; ]", name)[0] for name in required} == {"filelock", "pluggy", "pydantic-settings"}


def test_every_interpreter_of_tox_stands_in_the_classifiers_and_in_ci() -> None:
    versions = {name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)}
    factors = re.search(r"py3\{([\d,]+)\}", (ROOT / "tox.ini").read_text("utf-8"))
    assert factors is not None
    assert {f"3.{minor}" for minor in factors[1].split(",")} == versions
    loop = re.search(r"for version in ([\d. ]+);", (ROOT / ".ci" / "run").read_text("utf-8"))
    assert loop is not None
    assert set(loop[1].split()) == versions
