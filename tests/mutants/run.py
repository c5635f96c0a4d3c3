"""Mutants of the code, and whether the tests notice them: python tests/mutants/run.py [--scope core|figures] ...

The operators are cosmic-ray's. A seeded sample of the places of a scope is drawn; for each, one mutant is written into
a copy of the tree, and the tests that run its line (`covering.py`) are run until one fails. The copy has no data folder
beside it, so what is caught is caught without real pictures. What ran is in build/mutants/results.json.

A mutant that only slower tests might notice counts as a survivor: the tests of one are cut at `SECONDS` of their time.
A test that caught one is run again on the tree as it is, so that none counts that fails anyway. Where no test failed
but time was up or nothing could be imported, all of the tests must end and pass without it, in half the time.
"""

import argparse
import filecmp
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from mutants import forked  # noqa: E402
from mutants.covering import Covering  # noqa: E402
from mutants.places import Mutant, Rewritten, places  # noqa: E402

WORK = ROOT / "build" / "mutants"
TREE, MAPS, LOG = WORK / "tree", WORK / "maps", WORK / "pytest.log"
PACKAGES = ("payload", "sim", "hil", "export")
SCOPES = tomllib.loads((Path(__file__).parent / "scopes.toml").read_text(encoding="utf-8"))
NAMED = tomllib.loads((Path(__file__).parent / "named.toml").read_text(encoding="utf-8"))
EQUIVALENT = tomllib.loads((Path(__file__).parent / "equivalent.toml").read_text(encoding="utf-8"))
SECONDS = 40.0  # of tests a mutant, as they took without one
ENVIRONMENT = os.environ | {"PYTHONPATH": str(TREE), "OMP_NUM_THREADS": "1", "NADIR_DATA": str(WORK / "no-data")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scope", choices=SCOPES, default="core")
    parser.add_argument("--sample", type=int, help="how many mutants; the scope's own count")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cover", nargs="*", metavar="TESTS", help="measure first which test runs which line")
    parser.add_argument("--survivors", action="store_true", help="try only those again that survived the last time")
    options = parser.parse_args()
    scope, log = SCOPES[options.scope], WORK / "results.json"  # of all scopes: they share places
    copy_tree()
    if options.cover is not None or not MAPS.exists():
        cover(options.cover or [])
    covering = Covering(TREE, sorted(MAPS.iterdir()))
    named = [Rewritten.of(ROOT, entry) for entry in NAMED.get(options.scope, [])]
    drawn = [*named, *sample(scope, options.sample or scope["sample"], options.seed)]
    results: dict[str, Any] = json.loads(log.read_text(encoding="utf-8")) if log.exists() else {}
    if options.survivors:
        results = {key: result for key, result in results.items() if result["outcome"] == "caught"}
    for number, mutant in enumerate(drawn, 1):
        if mutant.name not in results:
            results[mutant.name] = judged(mutant, covering)
            log.write_text(json.dumps(results, indent=1), encoding="utf-8")
        tell(f"{number}/{len(drawn)} {results[mutant.name]['outcome']:10} {mutant.name}")
    return summed_up({mutant.name: results[mutant.name] for mutant in drawn}, scope["bar"])


def copy_tree() -> None:
    """The files of the checkout in `TREE`: those that git knows or would add, and the compiled kernel."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    names += [str(path.relative_to(ROOT)) for path in (ROOT / "payload" / "native").glob("_kernel*.so")]
    for name in names:
        (TREE / name).parent.mkdir(parents=True, exist_ok=True)
        if not same_file(ROOT / name, TREE / name):
            shutil.copy2(ROOT / name, TREE / name)
    for left in [path for path in TREE.rglob("*.py") if str(path.relative_to(TREE)) not in set(names)]:
        left.unlink()


def same_file(one: Path, other: Path) -> bool:
    return other.exists() and filecmp.cmp(one, other) and one.stat().st_mtime == other.stat().st_mtime


def cover(tests: list[str]) -> None:
    """One more measurement beside those that are there, or, of all tests, in their place."""
    tell(f"Which test runs which line: the quick tests of {', '.join(tests) or 'the tree'} once, under coverage.")
    if not tests:
        shutil.rmtree(MAPS, ignore_errors=True)
    folder = MAPS / f"{len(list(MAPS.glob('*'))):02}"
    for package in PACKAGES:
        shutil.copytree(TREE / package, folder / "sources" / package)
    command = [sys.executable, "-m", "coverage", "run", f"--data-file={folder / 'coverage'}"]
    command += [f"--source={','.join(PACKAGES)}", "-m", "pytest", "-p", "mutants.contexts", "-p", "no:cacheprovider"]
    command += ["-m", "not slow and not browser", *(tests or ["tests"])]
    paths = {"MUTANTS_PASSED": str(folder / "passed.json"), "PYTHONPATH": f"{TREE}:{TREE / 'tests'}"}
    subprocess.run(command, cwd=TREE, env=ENVIRONMENT | paths, check=False)


def sample(scope: dict[str, Any], count: int, seed: int) -> list[Mutant]:
    """`count` mutants of as many places of the scope, drawn with `seed`.

    Each place has a number of its own, by its name: a change to one file changes nothing about the draw of another.
    """
    files = sorted({str(path.relative_to(ROOT)) for name in scope["files"] for path in ROOT.glob(name)})
    files = [file for file in files if not any(Path(file).match(name) for name in scope.get("but", []))]
    every = [
        min(mutants, key=lambda mutant: number_of(mutant.name, seed))
        for file in files
        for mutants in places(ROOT, file)
    ]
    tell(f"{len(every)} places in {len(files)} files")
    return sorted(every, key=lambda mutant: number_of(mutant.name.rpartition(" ")[0], seed))[:count]


def number_of(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def judged(mutant: Mutant | Rewritten, covering: Covering) -> dict[str, Any]:
    """What became of a mutant: caught (by which test), timed out, equivalent by name, or survived."""
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    line, changed = text.splitlines()[mutant.line - 1].strip(), mutant.source(ROOT)
    told = {**asdict(mutant), "was": line, "is": changed.splitlines()[mutant.line - 1].strip()}
    for named in EQUIVALENT.get(mutant.file, []):
        if (named["was"], named["is"]) == (told["was"], told["is"]):
            return told | {"outcome": "equivalent", "why": named["why"]}
    tests = [test for test in covering.tests(mutant.file, mutant.line) if is_there(test)]
    sums = accumulate(covering.seconds[test] for test in tests)
    within = [test for test, total in zip(tests, sums, strict=True) if total <= SECONDS]
    limit_s = 60 + 8 * sum(covering.seconds[test] for test in within)
    (TREE / mutant.file).write_text(changed, encoding="utf-8")
    try:
        outcome = tried(within, limit_s)
    finally:
        shutil.copy2(ROOT / mutant.file, TREE / mutant.file)
    if outcome["outcome"] == "caught" and not named_test(outcome["by"]) and run_tests(within, limit_s / 2) != 0:
        outcome = {"outcome": "survived", "by": f"the same without it: {outcome['by']}"}
    return told | outcome | {"tests": len(tests)}


def named_test(by: str) -> bool:
    return by.startswith("tests/") and "::" in by


def is_there(test: str) -> bool:
    """Whether a test that was measured has not been renamed since."""
    file, _, name = test.partition("::")
    path = TREE / file
    return path.is_file() and f"def {name.rpartition('::')[2].partition('[')[0]}(" in path.read_text(encoding="utf-8")


def tried(tests: list[str], limit_s: float) -> dict[str, Any]:
    if not tests:
        return {"outcome": "survived", "by": "no quick test runs this line"}
    started = time.monotonic()
    code = run_tests(tests, limit_s)
    spent = {"seconds": round(time.monotonic() - started, 1)}
    if code is None:
        return {"outcome": "caught", "by": "time: an endless loop"} | spent
    if code == 0:
        return {"outcome": "survived", "by": f"{len(tests)} tests pass"} | spent
    return {"outcome": "caught", "by": first_failure()} | spent


def run_tests(tests: list[str], limit_s: float) -> int | None:
    workshop = any(test.startswith("tests/workshop") for test in tests)
    forked.import_libraries(forked.LIBRARIES + (forked.WORKSHOP if workshop else ()))
    return forked.pytest(TREE, tests, LOG, limit_s, ENVIRONMENT)


def first_failure() -> str:
    """The test that noticed, or, where the code could not even be imported, what pytest said last."""
    said = LOG.read_text(encoding="utf-8", errors="replace").splitlines()
    failed = [line.partition(" ")[2].partition(" - ")[0] for line in said if line.startswith(("FAILED ", "ERROR "))]
    return failed[0] if failed else " ".join(said[-3:])[:300]


def summed_up(results: dict[str, dict[str, Any]], bar: float) -> int:
    outcomes = [result["outcome"] for result in results.values()]
    caught, equivalent = outcomes.count("caught"), outcomes.count("equivalent")
    for name, result in results.items():
        if result["outcome"] == "survived":
            tell(f"\n{name}: {result['by']}\n  - {result['was']}\n  + {result['is']}")
    share = caught / max(len(outcomes) - equivalent, 1)
    tell(f"\n{caught} of {len(outcomes) - equivalent} caught: {100 * share:.1f} %, wanted {100 * bar:.0f} %")
    tell(f"{equivalent} of the {len(outcomes)} drawn are equivalent by name (tests/mutants/equivalent.toml)")
    return 0 if share >= bar and passes_unchanged(results) else 1


def passes_unchanged(results: dict[str, dict[str, Any]]) -> bool:
    """Whether the tests that caught something pass on the tree as it is."""
    catchers = sorted({r["by"] for r in results.values() if r["outcome"] == "caught" and named_test(r["by"])})
    good = run_tests(catchers, 3600) == 0
    tell(f"The {len(catchers)} tests that caught them, on the tree as it is: {'all pass' if good else first_failure()}")
    return good


def tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
