# Two commands matter: `make demo` and `make test`. Both install what they need into .venv, pinned by constraints.txt.

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
DATA := $(or $(NADIR_DATA),../shared/data)
KERNEL := $(wildcard payload/native/*.[ch])
SAY_KERNEL = $(BIN)/python -c 'from payload.native.library import available as built; \
	print("Compiled kernel: built" if built else "Compiled kernel: NOT BUILT (no C compiler with Python headers); the payload runs in numpy, same octets, some thirteen times slower")'
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

# F Prime's ground system judges our TM frames. It has a folder of its own, as it brings a plugin for pytest and some
# thirty packages that its deframer does not need.
REFEREES := --no-deps --target build/referees fprime-gds crcmod

.PHONY: help demo test test-onboard check docs bench evaluate equal equal-bundles fuzz fuzz-kernel bounds bench-link mutants sign clean

help:
	@echo "make demo          a generated scene through payload, link and ground; ends with the path of its report"
	@echo "make test          every test"
	@echo "make test-onboard  the payload's quick tests with nothing installed but what flies"
	@echo "make check         ruff, mypy, import rules"
	@echo "make docs          the pages as a site in build/site"
	@echo "make bench         speed of every stage on board, and the memory of a 10 980 x 10 980 scene"
	@echo "make equal         the same tile codes on this host and on emulated x86 without VNNI and ARM: some 20 minutes"
	@echo "make equal-bundles the tile codes of every shipped bundle on every runtime here: some minutes"
	@echo "make mutants       200 small changes to the code, one at a time: which of them do the tests notice? Some two hours"
	@echo "make fuzz          10^6 damaged units of the link; every reader of foreign octets under atheris"
	@echo "make bounds        10^8 samples within bounds on their error; 10^4 damaged residual layers"
	@echo "make fuzz-kernel   10^5 hostile layers, encodes and arguments for the kernel under ASan and UBSan"
	@echo "make sign          signs the bundles that ship: KEY=KEY.pem"
	@echo "make bench-link    speed of the link's layers beside libfec, 10^6 words beyond what Reed-Solomon corrects, and"
	@echo "                   10 000 units of ours read by each of six other people's programs: some ten minutes"
	@echo "make evaluate      rate, distortion and the cloud gate on the benchmark data, if its folder is there"

demo: $(VENV)/.ground
	@echo "A generated scene, from the imager to the ground:"
	$(BIN)/sim downlink --scene demo --out out/demo --overwrite
	@echo "The report is in $(CURDIR)/out/demo/report.html"

test: $(VENV)/.everything
	$(BIN)/python -m pytest --durations=15 -n auto --maxprocesses 4 --dist worksteal

# The payload alone, in an environment that holds its own dependencies and the test runner, and nothing of the ground.
test-onboard: build/onboard/.installed
	build/onboard/bin/python -m pytest tests/onboard -m 'not slow'

check: $(VENV)/.everything
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pages as a site in build/site: quick starts, every page, the reference from the docstrings. Broken links fail.
docs: $(VENV)/.everything
	$(INSTALL) --editable ".[docs]"
	$(BIN)/mkdocs build --strict --quiet --site-dir build/site
	@echo "The pages are in $(CURDIR)/build/site/index.html"

bench: $(VENV)/.ground
	$(BIN)/sim bench

evaluate: $(VENV)/.ground
	$(INSTALL) --editable ".[ground,clouds]"
	$(BIN)/sim evaluate --tiles $(DATA)/bench/rd20.npz
	$(BIN)/sim evaluate-clouds --data $(DATA)

# Needs qemu-user-static and debootstrap from the system; the arm64 root is made once and kept.
equal: $(VENV)/.everything
	$(BIN)/hil sysroot
	$(BIN)/hil equal --scene $(DATA)/scenes/ebiederstadt_20190522.tif --tiles $(DATA)/bench/rd20.npz --out out/equal --overwrite

equal-bundles: $(VENV)/.everything
	NADIR_EQUAL=all $(BIN)/python -m pytest -q tests/bench/test_every_bundle.py

# 10^6 damaged units of the link, then every reader of foreign octets under atheris, FUZZ_S seconds each: about half an
# hour. Stopped, the first part goes on where it was.
FUZZ_S ?= 60
UNITS ?= 1000000
fuzz: $(VENV)/.everything
	$(INSTALL) --editable ".[fuzz]"
	mkdir -p out/fuzz
	$(BIN)/python tests/fuzz/run.py --units $(UNITS) --record out/fuzz/link.jsonl
	cd out/fuzz && $(CURDIR)/$(BIN)/python $(CURDIR)/tests/fuzz/atheris_run.py --every $(FUZZ_S)

# Needs gcc with its sanitizers; about an hour. The tests run a short one.
fuzz-kernel: $(VENV)/.everything
	NADIR_BUNDLES=10000 $(BIN)/python -m pytest tests/onboard/test_hostile.py -k many_damaged_bundles
	$(BIN)/python tests/hostile/sanitized.py --decode 100000 --encode 100000 --entry 100000 --frames 100000 --bundle 1000

# 10^8 samples through payload and ground within bounds, and 10 000 damaged residual layers: about a quarter of an hour.
SAMPLES ?= 100000000
bounds: $(VENV)/.everything
	$(BIN)/python tests/hostile/bounds.py $(SAMPLES) 10000 $(wildcard $(DATA)/train/tiles128.npz)

# SCOPE=figures: 100 changes where reported figures are made. SEED=N draws others, MUTANTS="--survivors" tries those that
# were not noticed the last time. The first run measures which test runs which line.
SCOPE := core
SEED := 1
mutants: $(VENV)/.everything
	$(INSTALL) --editable ".[mutants]"
	$(BIN)/python tests/mutants/run.py --scope $(SCOPE) --seed $(SEED) $(MUTANTS)

# Signs every bundle that ships: after a change to one, or with a new key (docs/trust.md).
sign: $(VENV)/.ground
	@test -n "$(KEY)" || { echo "say which key: make sign KEY=KEY.pem"; exit 1; }
	for bundle in payload/bundles/*/manifest.json; do $(BIN)/python -m export sign $$(dirname $$bundle) --key "$(KEY)" || exit 1; done

# Speed of the frames' layers beside libfec, 10^6 random words against Reed-Solomon, and all referees.
bench-link: $(VENV)/.everything
	$(BIN)/python tests/hostile/link_bars.py
	$(BIN)/python tests/hostile/referees.py

clean:
	rm -rf $(VENV) build out

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Nadir needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The kernel is compiled on installation: a change to it installs again, so that Python never meets an older one.
$(VENV)/.ground: pyproject.toml constraints.txt $(KERNEL) | $(VENV)/bin/python
	$(INSTALL) --editable ".[ground]"
	@$(SAY_KERNEL)
	touch $@

$(VENV)/.everything: pyproject.toml constraints.txt $(KERNEL) | $(VENV)/bin/python
	$(INSTALL) --editable ".[ground,archive,campaign,viewer,features,opponents,bench,train,test,check]"
	touch $@ $(VENV)/.ground
	@test -d build/referees || $(INSTALL) $(REFEREES) || echo "NOT INSTALLED: fprime-gds; the tests that need it will skip"

build/onboard/.installed: pyproject.toml constraints.txt $(KERNEL)
	test -x build/onboard/bin/python || $(PYTHON) -m venv build/onboard
	build/onboard/bin/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable ".[test]"
	touch $@
