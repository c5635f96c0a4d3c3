"""A target under atheris (libFuzzer), guided by coverage: python tests/fuzz/atheris_run.py TARGET [libFuzzer options]

Needs `pip install .[fuzz]`. `--every SECONDS` runs all targets for so long each (`make fuzz`). A finding ends the run
with another code than 0 and lies in a file `crash-...`; TARGET and that file as the only option run it again. Without
TARGET the names are printed.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


LIMITS = ("-timeout=20", "-rss_limit_mb=4096", "-verbosity=0", "-print_final_stats=1")


def one(target: str, seconds: float) -> int:
    """Exit code of a target's own process; what it found is printed, else how many inputs it tried."""
    command = [sys.executable, __file__, target, f"-max_total_time={seconds:.0f}", *LIMITS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    tried = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed" in line]
    print(
        f"{target}: {' '.join(tried) or '?'} inputs, {'nothing found' if not done.returncode else 'FOUND'}", flush=True
    )
    if done.returncode:
        print(done.stdout + done.stderr[-4000:], file=sys.stderr)
    return abs(done.returncode)


def main() -> None:
    sys.path[:0] = [str(TESTS.parent), str(TESTS)]
    import atheris

    with atheris.instrument_imports(include=["payload", "sim", "hil", "export", "spacepackets"]):
        from fuzz.targets import TARGETS, outcome

    if len(sys.argv) < 2:
        print("\n".join(TARGETS))
        return
    if sys.argv[1] == "--every":
        sys.exit(max(one(name, float(sys.argv[2])) for name in TARGETS))
    target = TARGETS[sys.argv[1]]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds()):
            (Path(corpus) / f"seed{number}").write_bytes(seed)
        again = [option for option in sys.argv[2:] if not option.startswith("-")]
        atheris.Setup([sys.argv[0], *sys.argv[2:], *([] if again else [corpus])], lambda data: outcome(target, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
