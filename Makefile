# `make demo` and `make test` need nothing but Python 3.10 or newer: they make their own .venv.
#
#   PYTHON        the interpreter to build .venv from
#   TORCH_INDEX   an extra index for torch; on a machine without a GPU
#                 https://download.pytorch.org/whl/cpu saves the CUDA libraries
#   PYTEST_ARGS   passed on to pytest

PYTHON ?= python3
TORCH_INDEX ?=
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# glibc gives large blocks back to the system at once, and page faults then cost a quarter of a forward on a CPU
export MALLOC_MMAP_THRESHOLD_ ?= 4000000000
export MALLOC_TRIM_THRESHOLD_ ?= 40000000000

.DEFAULT_GOAL := help
.NOTPARALLEL:  # what is timed, and what rewrites README.md
.PHONY: help venv demo test browser docs slow drill lint types imports results claims ablation many-classes readme \
	pictures screens bounds benchmarks dist train clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## the virtual environment, with the package and its tools installed

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("bigain needs Python 3.10 or newer; this is " \
		+ sys.version.split()[0] + " (choose another: make PYTHON=python3.11 ...)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(INDEX) -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP) ## a few minutes: the joint run on the embedded models, in small
	$(BIN)/bigain demo

test: $(STAMP) ## the tests, without the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

browser: $(STAMP) ## what the tests of pages need: Debian's Chromium (as root), Playwright and axe-core
	$(BIN)/python -m pip install $(INDEX) -c constraints.txt -e '.[dev,browser]'
	command -v chromium || { apt-get update && apt-get install --yes --no-install-recommends chromium; }

slow: $(STAMP) ## the slow tests alone
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

drill: $(STAMP) ## twenty minutes: runs whose workers, driver, node, disk or files are struck at random moments
	$(BIN)/python -m pytest -m drill $(PYTEST_ARGS)

docs: $(STAMP) ## the site of docs/, into runs/site: no broken link
	$(BIN)/python -m pip install $(INDEX) -c constraints.txt -e '.[dev,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(STAMP) ## ruff, and its format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy
	$(BIN)/mypy

imports: $(STAMP) ## the direction of imports
	$(BIN)/lint-imports --no-logo

JOINT := results-glyphs-flux results-glyphs-video
results: $(addprefix results-,glyphs-dit glyphs-sd glyphs-dit-64) $(JOINT) $(JOINT:%=%-alike) times-glyphs-dit-64-float32 ## hours, resumes: the full comparison on the embedded models, into results/

results-%: $(STAMP)
	$(BIN)/bigain evaluate --config experiments/results/$*.toml --out runs/results/$*
	$(BIN)/python -m experiments.export runs/results/$* results/$*.json
	mkdir -p docs/pictures
	cp runs/results/$*/samples.png docs/pictures/samples-$*.png
	cp runs/results/$*/front.png docs/pictures/front-$*.png

results-glyphs-flux: PAGE = samples-glyphs-flux.png
results-glyphs-video: PAGE = samples-glyphs-video.webp
$(JOINT): results-%: $(STAMP)
	mkdir -p docs/pictures
	$(BIN)/bigain evaluate --config experiments/results/$*.toml --out runs/results/$*
	$(BIN)/python -m experiments.export runs/results/$* results/$*.json
	cp runs/results/$*/samples$(suffix $(PAGE)) docs/pictures/$(PAGE)

$(JOINT:%=%-alike): results-%: $(STAMP)
	$(BIN)/bigain evaluate --config experiments/results/$*.toml --out runs/results/$*
	$(BIN)/python -m experiments.export runs/results/$* results/$*.json

times-%: $(STAMP)
	$(BIN)/bigain evaluate --config experiments/results/$*.toml --out runs/results/$*
	$(BIN)/python -m experiments.export runs/results/$* results/$*.json

RANGES := --spacing scheduler --timesteps 5 --ranges "0 600 800 900 960 1000"
allocate-glyphs-flux: CHOOSE = --images 8 --batch-size 8 --timing-rounds 5 $(RANGES)
allocate-glyphs-video: CHOOSE = --data glyphs-moving --images 6 --batch-size 4 --timing-rounds 3 $(RANGES)
allocate-%: $(STAMP)
	$(if $(SPEED),,$(error SPEED must say how many times as fast it is to be, such as SPEED=1.3))
	$(BIN)/bigain allocate --model $* $(CHOOSE) --speed-up $(SPEED) --out runs/allocate/$*
	$(BIN)/python -m experiments.offers $* runs/allocate/$*/offers.json
	cp runs/allocate/$*/offers.json results/offers-$*.json

ablation: $(addprefix ablation-,glyphs-dit glyphs-sd float32 glyphs-dit-64 allocation) ## hours, resumes: what of the presets is layers, what is method

ablation-%: $(STAMP)
	$(BIN)/bigain evaluate --config experiments/ablations/$*.toml --out runs/ablation/$*
	$(BIN)/python -m experiments.export runs/ablation/$* results/ablation-$*.json

classifier-%: $(STAMP)
	$(BIN)/python -m experiments.classifier $* results/classifier-$*.json

many-classes: $(STAMP)
	$(BIN)/python -m experiments.many_classes results/many-classes.json

claims: claims-glyphs-dit claims-glyphs-sd ## an hour, resumes: the paper's tables, asked of the embedded models

claims-glyphs-dit: CLAIMS = --ratio 0.3 --without-text
claims-%: $(STAMP)
	$(BIN)/python -m experiments.paper.reproduce all --config experiments/paper/claims.toml --model $* $(CLAIMS) \
		--out runs/claims/$* --page experiments/paper/claims-$*.md
	$(BIN)/bigain report runs/claims/$*/results.sqlite --export results/claims-$*.json

readme: $(STAMP) ## the tables of README.md and docs/, from results/
	$(BIN)/python -m experiments.tables

GALLERY := lgtm-0.5 abm-0.5 quadtree-0.5 tome:ratio=0.5,destinations=random sito-0.5 avgpool-2

pictures: $(STAMP) ## the pictures of docs/method.md and docs/methods.md
	mkdir -p docs/pictures
	for method in $(GALLERY); do \
		$(BIN)/bigain inspect -m $$method --image 6 --timestep 100 \
			--out docs/pictures/inspect-$$(echo $$method | sed 's/[:-].*//').png || exit 1; \
	done
	$(BIN)/bigain inspect -m lgtm-0.5 --image 3 --timestep 100 --out docs/pictures/method-inspect.png
	$(BIN)/bigain analyse -m "lgtm-0.5 todo-2 avgpool-2 iekvd-2" --images 4 --dtype bfloat16 --out runs/pictures
	cp runs/pictures/spectrum-1.png docs/pictures/method-spectrum.png
	$(BIN)/bigain analyse -m "glyphs-dit/balanced avgpool-2 iekvd-2" --images 24 --dtype bfloat16 --out runs/timesteps
	cp runs/timesteps/timesteps.png docs/pictures/method-timesteps.png

screens: demo browser ## how the pages look on a desk and on a phone
	$(BIN)/python docs/screens.py

bounds: $(STAMP) ## a minute: the table of docs/bound.md, from configs alone
	$(BIN)/python -m benchmarks.bounds --docs docs/bound.md

EVERYWHERE := quadtree:ratio=0.75,levels=1/2/3,locations=self_attention/mlp
PROCESSOR := tome:ratio=0.5,destinations=random tome:ratio=0.7,destinations=random lgtm-0.7 abm-0.7 quadtree-0.7 avgpool-2
LARGE := tome:ratio=0.5,destinations=random quadtree-0.7 avgpool-2

SD := $(BIN)/bigain bench SD-2.1 -m "$(PROCESSOR) $(EVERYWHERE)"

benchmarks: $(STAMP) ## an hour and a half, on a machine that does nothing else: the tables of docs/speed.md and docs/processor.md
	$(BIN)/bigain bench glyphs-dit-64 --size "32x32 64x64 128x128" --batch-size 4 --rounds 9 \
		--json results/bench-glyphs-dit-64.json
	$(SD) --size 512x512 --rounds 5 --json results/bench-sd-2.1-512.json
	$(SD) --size 768x768 --rounds 3 --json results/bench-sd-2.1-768.json
	$(BIN)/bigain bench SD-2.1 -m "$(LARGE) $(EVERYWHERE)" --size 1024x1024 --batch-size 1 --rounds 3 \
		--json results/bench-sd-2.1-1024.json
	for dtype in float32 bfloat16; do \
		$(BIN)/bigain bench glyphs-dit-64 --size 64x64 --batch-size 4 --rounds 9 --compile --dtype $$dtype \
			--json results/compiled-$$dtype.json || exit 1; \
	done
	$(BIN)/python -m experiments.switches results/switches-sd-2.1-512.json
	$(BIN)/python -m experiments.tables

dist: $(STAMP) ## wheel and source archive
	$(BIN)/python -m pip install $(INDEX) -c constraints.txt build
	rm -rf dist build
	$(BIN)/python -m build

VIDEO = $(BIN)/python training/train_video.py --for-frames 9 --warmup-steps 30
FINER = --warmup-steps 50 --learning-rate 0.0005 --muon-rate 0.01 --ema 0.99

train: $(STAMP) ## hours, resumes: trains the embedded models; see docs/training.md
	$(BIN)/python training/train_dit.py
	$(BIN)/python training/train_dit.py --size 64 --cosine-at 64 --start-from src/bigain/zoo/glyphs_dit \
		--folder runs/glyphs-dit-64-first --train-length 25000 --batch 32 --images 20800 --decay-images 12800 \
		--learning-rate 0.0005 --muon-rate 0.01 --ema 0.995
	$(BIN)/python training/train_dit.py --size 64 --start-from runs/glyphs-dit-64-first/export \
		--teacher src/bigain/zoo/glyphs_dit --weight 16 --folder runs/glyphs-dit-64 --train-length 25000 --batch 16 \
		--images 22400 --decay-images 6400 --warmup-steps 50 --learning-rate 0.0005 --muon-rate 0.01 --ema 0.99
	$(BIN)/python training/train_autoencoder.py
	$(BIN)/python training/train_text_to_image.py
	$(BIN)/python training/train_flux.py --teaching 0 --folder runs/glyphs-flux-64 --images 125000 --decay-images 45000
	$(BIN)/python training/train_flux.py --teaching 0 --size 128 --start-from runs/glyphs-flux-64/export \
		--folder runs/glyphs-flux-128 --batch 32 --images 36000 --decay-images 16000 --train-length 10000 $(FINER)
	$(BIN)/python training/train_flux.py --size 128 --for-size 256 --start-from runs/glyphs-flux-128/export \
		--folder runs/glyphs-flux-view --batch 32 --images 60000 --decay-images 24000 --train-length 10000 $(FINER) --seed 1
	$(BIN)/python training/train_flux.py --size 256 --start-from runs/glyphs-flux-view/export \
		--folder runs/glyphs-flux --batch 16 --images 15200 --decay-images 8000 --train-length 4000 $(FINER) --seed 2
	$(BIN)/python training/train_video_autoencoder.py
	$(VIDEO) --size 32 --for-size 64 --frames 1 --shift 2 --folder runs/glyphs-video-stills --batch 32 --images 110000 \
		--train-length 16000
	$(VIDEO) --size 32 --for-size 64 --frames 3 --shift 3 --apart 0.7 --start-from runs/glyphs-video-stills/export \
		--folder runs/glyphs-video-32 --batch 24 --images 120000 --train-length 6000
	$(VIDEO) --frames 3 --apart 0.3 --start-from runs/glyphs-video-32/export --folder runs/glyphs-video-64 \
		--batch 12 --images 6000 --decay-images 3000 --train-length 3000 --learning-rate 0.0005 --muon-rate 0.006 --ema 0.99
	$(VIDEO) --frames 9 --apart 0.2 --pad --start-from runs/glyphs-video-64/export --folder runs/glyphs-video \
		--batch 6 --images 1440 --decay-images 900 --train-length 1500 --learning-rate 0.0005 --muon-rate 0.004 --ema 0.98
	$(BIN)/python training/train_recogniser.py

clean: ## removes caches and builds; keeps .venv and runs
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests training experiments benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
