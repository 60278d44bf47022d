# Every target makes .venv and installs into it by itself; all it needs is Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA := data
RUN := runs/demo
WORKERS ?= 2

.PHONY: demo test test-slow test-benchmarks test-integration lint type format bench unchanged vendor clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[model,dev,bench]'
	touch $@

## The whole road: sample catalog, store, figure, training, reconstruction, retrieval, comparison
demo: $(STAMP)
	$(BIN)/salibi-data build --variant micro --catalog sample -o $(DATA)/micro.zarr --workers $(WORKERS)
	$(BIN)/salibi-data info $(DATA)/micro.zarr
	$(BIN)/salibi-data figure $(DATA)/micro.zarr -o figures/micro.png -n 4
	$(BIN)/salibi-model train $(DATA)/micro.zarr --size tiny --out $(RUN)/scale-alibi
	$(BIN)/salibi-model reconstruct $(RUN)/scale-alibi $(DATA)/micro.zarr -o figures/reconstruction.png -n 4
	$(BIN)/salibi-model eval retrieval $(RUN)/scale-alibi --data $(DATA)/micro.zarr
	$(BIN)/salibi-data sample $(DATA)/labelled --labelled
	$(BIN)/salibi-model compare $(DATA)/micro.zarr --size tiny --data $(DATA)/labelled --scales 1,2,4 -o $(RUN)

# One thread per process: two processes of two threads each wait for each other on two cores. Tests go to
# whichever process is free; what takes long to make is made once for both (tests/support/once.py). Compiled
# modules are kept, whatever the environment says: the tests start many processes.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --durations=20

## Tests that take more than half a minute each, or show again in full what a shorter one shows: the documented demo, larger kill drills
test-slow: $(STAMP)
	$(BIN)/pytest -m slow

## Every benchmark of `make bench` in its smallest form
test-benchmarks: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m benchmark tests/test_benchmarks.py

## Tests against servers that are not Python packages: installs them, where this user may
test-integration: $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[model,dev,integration,wandb,mlflow]'
	tests/integration/install.sh $(VENV)
	$(BIN)/pytest -m integration tests/integration

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## Claims about speed, each in its quick form; without --quick they take minutes each
BENCHMARKS := data/tiling data/remote_tiling data/shrinking data/reading data/remote_reading data/codecs model/scattered model/loading model/loader_wait model/step model/attention model/allocator model/bias model/value_check data/planning data/scaling data/continent data/building data/importing
bench: $(STAMP)
	for name in $(BENCHMARKS); do echo "== $$name" && $(BIN)/python -m benchmarks.$$(echo $$name | tr / .) --quick || exit 1; done

## The files, figures and command line of this tree beside those of an earlier revision: make unchanged REV=v0.1
REV ?= HEAD~1
unchanged: $(STAMP)
	$(BIN)/python -m benchmarks.unchanged --against $(REV)

## What others made and the page of `salibi-data view` ships, fetched anew; versions as in its README
VENDOR := salibi_data/viewer/page/vendor
vendor:
	folder=$$(mktemp -d) && npm install --silent --no-save --prefix $$folder maplibre-gl@5.24.1 world-atlas@2.0.2 us-atlas@3.0.1 && cd $$folder/node_modules && \
	cp maplibre-gl/dist/maplibre-gl.js maplibre-gl/dist/maplibre-gl.css world-atlas/countries-110m.json us-atlas/states-10m.json $(CURDIR)/$(VENDOR) && \
	for package in maplibre-gl world-atlas us-atlas; do cp $$package/LICENSE* $(CURDIR)/$(VENDOR)/$$package.LICENSE.txt; done && rm -r $$folder

clean:
	rm -rf $(VENV) $(DATA)/micro.zarr $(DATA)/micro.zarr.building $(DATA)/micro.zarr.log.jsonl $(DATA)/labelled $(RUN) figures
