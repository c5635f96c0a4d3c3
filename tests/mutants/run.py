"""Mutants of the code, and whether the tests notice them: python tests/mutants/run.py [--scope core|figures] ...

The operators are cosmic-ray's. A seeded sample of the places of a scope is drawn; for each, one mutant is written into
a copy of the tree, and the tests that run its line (`covering.py`) are run until one fails. The copy has no data folder
beside it, so what is caught is caught without real pictures. What ran is in build/mutants/SCOPE.json.

A mutant that only slower tests might notice counts as a survivor: the tests of one are cut at `SECONDS` of their time.
A test that caught one is run again on the tree as it is, so that none counts that fails anyway.
"""

import argparse
import json
import os
import random
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

from mutants.covering import Covering  # noqa: E402
from mutants.places import Mutant, places  # noqa: E402

WORK = ROOT / "build" / "mutants"
TREE, MAPS = WORK / "tree", WORK / "maps"
PACKAGES = ("payload", "sim", "hil", "export")
SCOPES = tomllib.loads((Path(__file__).parent / "scopes.toml").read_text(encoding="utf-8"))
EQUIVALENT = tomllib.loads((Path(__file__).parent / "equivalent.toml").read_text(encoding="utf-8"))
SECONDS = 40.0  # of tests a mutant, as they took without one
ENVIRONMENT = os.environ | {"PYTHONPATH": str(TREE), "OMP_NUM_THREADS": "1", "NADIR_DATA": str(WORK / "no-data")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scope", choices=SCOPES, default="core")
    parser.add_argument("--sample", type=int, help="how many mutants; the scope's own count")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--cover",
        nargs="*",
        metavar="TESTS",
        help="measure first which test runs which line: of these test files, or all",
    )
    parser.add_argument("--survivors", action="store_true", help="try only those again that survived the last time")
    options = parser.parse_args()
    scope, log = SCOPES[options.scope], WORK / f"{options.scope}.json"
    copy_tree()
    if options.cover is not None or not MAPS.exists():
        cover(options.cover or [])
    covering = Covering(TREE, sorted(MAPS.iterdir()))
    drawn = sample(scope, options.sample or scope["sample"], options.seed)
    results: dict[str, Any] = json.loads(log.read_text(encoding="utf-8")) if log.exists() else {}
    if options.survivors:
        results = {key: result for key, result in results.items() if result["outcome"] == "caught"}
    for number, mutant in enumerate(drawn, 1):
        if key(mutant) not in results:
            results[key(mutant)] = judged(mutant, covering)
            log.write_text(json.dumps(results, indent=1), encoding="utf-8")
        tell(f"{number}/{len(drawn)} {results[key(mutant)]['outcome']:9} {key(mutant)}")
    return summed_up({key(m): results[key(m)] for m in drawn}, scope["bar"])


def copy_tree() -> None:
    """The files of the checkout in `TREE`: those that git knows or would add, and the compiled kernel."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    names += [str(path.relative_to(ROOT)) for path in (ROOT / "payload" / "native").glob("_kernel*.so")]
    shutil.rmtree(TREE, ignore_errors=True)
    for name in names:
        (TREE / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, TREE / name)


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
    """`count` mutants of as many places, drawn with `seed` from all places of the scope but the equivalent ones."""
    files = sorted({str(path.relative_to(ROOT)) for name in scope["files"] for path in ROOT.glob(name)})
    files = [file for file in files if not any(Path(file).match(name) for name in scope.get("but", []))]
    generator = random.Random(seed)
    every = [mutants for file in files for mutants in places(ROOT, file).values()]
    tell(f"{len(every)} places in {len(files)} files")
    return [generator.choice(mutants) for mutants in generator.sample(every, count)]


def judged(mutant: Mutant, covering: Covering) -> dict[str, Any]:
    """What became of a mutant: caught (by which test), timed out, equivalent by name, or survived."""
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    line, changed = text.splitlines()[mutant.line - 1].strip(), mutant.source(ROOT)
    told = {**asdict(mutant), "was": line, "is": changed.splitlines()[mutant.line - 1].strip()}
    for named in EQUIVALENT.get(mutant.file, []):
        if (named["was"], named["is"]) == (told["was"], told["is"]):
            return told | {"outcome": "equivalent", "why": named["why"]}
    tests = covering.tests(mutant.file, mutant.line)
    sums = accumulate(covering.seconds[test] for test in tests)
    within = [test for test, total in zip(tests, sums, strict=True) if total <= SECONDS]
    target = TREE / mutant.file
    target.write_text(changed, encoding="utf-8")
    try:
        return told | tried(within, sum(covering.seconds[test] for test in within)) | {"tests": len(tests)}
    finally:
        shutil.copy2(ROOT / mutant.file, target)


def tried(tests: list[str], seconds: float) -> dict[str, Any]:
    if not tests:
        return {"outcome": "survived", "by": "no quick test runs this line"}
    started = time.monotonic()
    try:
        run = pytest(tests, 60 + 8 * seconds)
    except subprocess.TimeoutExpired:
        return {"outcome": "caught", "by": "time: an endless loop"}
    failed = [line.split()[1] for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    spent = {"seconds": round(time.monotonic() - started, 1)}
    if run.returncode == 0:
        return {"outcome": "survived", "by": f"{len(tests)} tests pass"} | spent
    return {"outcome": "caught", "by": failed[0] if failed else run.stdout[-300:]} | spent


def pytest(tests: list[str], limit_s: float) -> subprocess.CompletedProcess[str]:
    named = WORK / "tests.txt"
    named.write_text("\n".join(tests), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-rfE", "--tb=no", "-p", "no:cacheprovider", f"@{named}"]
    return subprocess.run(
        command, cwd=TREE, env=ENVIRONMENT, timeout=limit_s, capture_output=True, text=True, check=False
    )


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
    catchers = sorted({r["by"] for r in results.values() if r["outcome"] == "caught" and "::" in r["by"]})
    run = pytest(catchers, 3600)
    tell(f"The {len(catchers)} tests that caught them, on the tree as it is: {run.stdout.strip().splitlines()[-1]}")
    return run.returncode == 0


def key(mutant: Mutant) -> str:
    return f"{mutant.file}:{mutant.line}:{mutant.column} {mutant.operator} {mutant.occurrence}"


def tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
