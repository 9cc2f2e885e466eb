# make demo, make test: each sets itself up. On Windows, or without make: see README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := expr/demo
# One worker per core, at most eight. A test file stays with one worker, so its fixtures are set up once.
PYTEST := $(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile

.PHONY: demo test test-unit test-slow lint browser clean

demo: $(VENV)/.installed
	$(BIN)/python main.py --mode sample --preset demo --outputs reference,latent,video_ref --result_dir $(DEMO)/results
	$(BIN)/python -m data.demo --out data/demo
	$(BIN)/python main.py --mode train --preset demo --total_iters 300 --ema_decay 0.98 --sample_every 150 \
		--checkpoint_dir $(DEMO)/checkpoints --sample_dir $(DEMO)/samples
	@echo
	@echo "What a model trained before makes of pictures: open $(DEMO)/results/index.html in a browser."
	@echo "The two minutes of training just now, its pictures and curves: $(DEMO)/samples/index.html"
	@echo "For the commands of README.md: source $(BIN)/activate"

test: $(VENV)/.installed-dev browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST)

# About a minute on two cores.
test-unit: $(VENV)/.installed-dev
	$(PYTEST) tests/unit

# The golden numbers at full width, memory, and learning.
test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache

# Tests of pages need a Chromium. Debian has one; elsewhere, and without the right to install, they are left out.
browser:
	@command -v chromium chromium-browser google-chrome chrome > /dev/null || \
		{ test "$$(id -u)" = 0 && apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends chromium > /dev/null; } || \
		echo "no Chromium here: tests of pages are left out"

$(VENV)/.installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@
