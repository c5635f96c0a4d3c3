"""A pytest plugin: under `coverage run`, every line of data is filed under the test that ran it; passes are timed.

`test|setup` and `test|run` are filed apart: what a fixture of a module did serves every test of that module.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

passed: dict[str, float] = {}


def _file_under(context: str) -> None:
    measured = coverage.Coverage.current()
    if measured is not None:
        measured.switch_context(context)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    _file_under(f"{item.nodeid}|setup")
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    _file_under(f"{item.nodeid}|run")
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        passed[report.nodeid] = round(report.duration, 3)


def pytest_sessionfinish() -> None:
    Path(os.environ["MUTANTS_PASSED"]).write_text(json.dumps(passed, indent=0), encoding="utf-8")
