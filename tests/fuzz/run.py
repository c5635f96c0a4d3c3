"""The campaign of damaged units of the link: python tests/fuzz/run.py --units 1000000 --record FILE     (make fuzz)

Ends with 1 if anything crashed, hung or was silently wrong. With --record it goes on where it was stopped.
"""

import argparse
import logging
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=20_000)
    parser.add_argument("--record", type=Path, help="a file of JSON lines: read, and added to")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.path[:0] = [str(TESTS.parent), str(TESTS)]
    from fuzz import link_campaign

    found = link_campaign.run(options.units, options.record)
    print(f"{link_campaign.units_in(found)} damaged units: {dict(sorted(found.items()))}")
    print(f"{link_campaign.bad_in(found)} crashes, hangs and silently wrong tiles or headers")
    return 1 if link_campaign.bad_in(found) else 0


if __name__ == "__main__":
    sys.exit(main())
