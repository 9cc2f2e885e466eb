# `make demo` and `make test` create the virtual environment first. On Windows or without make, see README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := expr/demo
OLDEST := .venv-oldest
# Python 3.10 where there is one that starts.
OLDEST_PYTHON ?= $(shell python3.10 -c "" 2> /dev/null && echo python3.10 || echo $(PYTHON))
# One worker per core, at most eight. One worker runs all tests of a file, so fixtures are created only once.
PYTEST := $(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile

.PHONY: demo test test-unit test-slow test-gpu test-oldest lint browser clean

demo: $(VENV)/.installed
	$(BIN)/python main.py sample --preset demo --checkpoint assets/demo --outputs reference,latent,video_ref --result_dir $(DEMO)/results
	$(BIN)/python -m data.demo --out data/demo
	$(BIN)/python main.py train --preset demo --total_iters 300 --ema_decay 0.98 --sample_every 150 \
		--checkpoint_dir $(DEMO)/checkpoints --sample_dir $(DEMO)/samples
	@echo
	@echo "Images translated by the included model: open $(DEMO)/results/index.html in a browser."
	@echo "Images and curves of the two-minute training run: open $(DEMO)/samples/index.html"
	@echo "Before you run the commands in README.md: source $(BIN)/activate"

test: $(VENV)/.installed-dev browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST)

# Takes about one minute on two cores.
test-unit: $(VENV)/.installed-dev
	$(PYTEST) tests/unit

# Tests golden numbers at full width, memory and learning.
test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow

# Tests what only a CUDA GPU can show. Without one, these tests are skipped.
test-gpu: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m gpu

# Runs the unit tests with the lowest versions that requirements.txt allows. Installs 6 GB on Linux.
test-oldest: $(OLDEST)/.installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -q tests/unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OLDEST) .pytest_cache .ruff_cache

# Tests of HTML pages need Chromium. This installs it on Debian as root. Without Chromium, these tests are skipped.
browser:
	@command -v chromium chromium-browser google-chrome chrome > /dev/null || \
		{ test "$$(id -u)" = 0 && apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends chromium > /dev/null; } || \
		echo "Chromium not found: tests of HTML pages are skipped"

$(VENV)/.installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(OLDEST)/.installed: requirements-oldest.txt
	test -x $(OLDEST)/bin/python || $(OLDEST_PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet -r requirements-oldest.txt "pytest>=8,<10"
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@
