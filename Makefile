# make demo, make test: each sets itself up. On Windows, or without make: see README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := expr/demo

.PHONY: demo test test-slow lint clean

demo: $(VENV)/.installed
	$(BIN)/python -m data.demo --out data/demo --size 64 --train 100 --val 4
	$(BIN)/python main.py --mode train --img_size 64 --channel_base 512 --max_conv_dim 64 --hidden_dim 128 --w_hpf 0 \
		--batch_size 4 --total_iters 240 --ds_iter 240 --lr 1.5e-3 --f_lr 1.5e-4 --ema_decay 0.98 \
		--sample_every 240 --val_batch_size 6 --num_outs_per_domain 2 \
		--train_img_dir data/demo/train --val_img_dir data/demo/val \
		--checkpoint_dir $(DEMO)/checkpoints --sample_dir $(DEMO)/samples
	$(BIN)/python main.py --mode sample --checkpoint_dir $(DEMO)/checkpoints --result_dir $(DEMO)/results \
		--src_dir data/demo/val --ref_dir data/demo/val
	@echo
	@echo "Open $(DEMO)/results/reference.jpg (columns: sources, rows: references), $(DEMO)/results/video_ref.mp4"
	@echo "and the pictures of the training in $(DEMO)/samples. A minute of training is a beginning: see README.md."

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q

# The golden numbers at full width, memory, and learning: about a quarter of an hour on two cores.
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache

$(VENV)/.installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@
