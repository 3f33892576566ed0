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
.PHONY: help venv demo test slow lint types imports results float32 claims ablation readme pictures benchmarks train clean

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
	$(BIN)/bigain evaluate --preset-grid demo -m glyphs-dit/balanced
	$(BIN)/bigain evaluate --model glyphs-sd --preset-grid demo -m glyphs-sd/balanced

test: $(STAMP) ## the tests, without the slow ones
	$(BIN)/python -m pytest $(PYTEST_ARGS)

slow: $(STAMP) ## the slow tests alone
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

lint: $(STAMP) ## ruff
	$(BIN)/ruff check .

types: $(STAMP) ## mypy
	$(BIN)/mypy

imports: $(STAMP) ## the direction of imports
	$(BIN)/lint-imports --no-logo

results: results-glyphs-dit results-glyphs-sd ## hours, resumes: the full comparison on the embedded models, into results/

results-%: GRID = published
results-%: BUDGETS = iekvd-2 iekvd-3 iekvd-4
results-%: PRESETS = $*/quality $*/balanced $*/fast
results-glyphs-dit: GRID = full
AT_BUDGETS = tome-0.5 tome:ratio=0.5,destinations=random,redraw=image lgtm-0.5 abm-0.5 sito-0.5
results-%: $(STAMP)
	$(BIN)/bigain evaluate --model $* -m "$(AT_BUDGETS)" --equal-flops "$(BUDGETS)" --dtype bfloat16 --classify 1000 \
		--generate 1000 --to-keep "3 1" --n-samples "2 8" --steps 20 --timing-rounds 0 --out runs/full/$*
	$(BIN)/bigain evaluate --model $* --preset-grid $(GRID) -m "$(PRESETS)" --dtype bfloat16 --out runs/full/$*
	$(BIN)/bigain report runs/full/$*/results.sqlite --against "$(PRESETS)" --export results/$*.json
	mkdir -p docs/pictures
	cp runs/full/$*/samples.png docs/pictures/samples-$*.png

SMALL = --classify 200 --generate 200 --to-keep "3 1" --n-samples "2 8" --steps 20
PLACED = layers=0/2/4/5

float32: PRESETS = glyphs-dit/quality glyphs-dit/balanced glyphs-dit/fast
float32: $(STAMP) ## half an hour, resumes: a preset and a published method beside each other in time, in float32
	$(BIN)/bigain evaluate --model glyphs-dit --preset-grid demo $(SMALL) --dtype float32 --timing-rounds 7 --timing-batch 32 \
		-m "$(PRESETS) avgpool:factor=2,$(PLACED) iekvd:factor=2,$(PLACED)" --out runs/float32/glyphs-dit
	$(BIN)/bigain report runs/float32/glyphs-dit/results.sqlite --against "$(PRESETS)" --export results/float32-glyphs-dit.json

claims: claims-glyphs-dit claims-glyphs-sd ## an hour, resumes: the paper's tables, asked of the embedded models

claims-%: RATIO = 0.7
claims-glyphs-dit: RATIO = 0.3
claims-%: $(STAMP)
	$(BIN)/bigain reproduce all --model $* --ratio $(RATIO) --dtype bfloat16 --out runs/claims/$* --page docs/claims-$*.md
	$(BIN)/bigain report runs/claims/$*/results.sqlite --export results/claims-$*.json

ablation: ablation-glyphs-dit ablation-glyphs-sd ## an hour, resumes: what of the presets is layers, what is method

ABLATED = $(SMALL) --dtype bfloat16 --timing-batch 32
RANDOM = destinations=random
ablation-glyphs-dit: HERE = $(RANDOM),$(PLACED)
ablation-glyphs-dit: BLOCKS = quadtree:ratio=0.5,$(PLACED),size_aware=true
ablation-glyphs-dit: KEYS = tome:ratio=0.5,layers=2,size_aware=true,queries=full,$(RANDOM)
ablation-glyphs-dit: LAST = tome:ratio=0.3,layers=5,locations=self_attention/mlp,size_aware=true,$(RANDOM)
ablation-glyphs-dit: MATCHED = tome:ratio=0.9,cell=4x4,layers=0,size_aware=true,$(RANDOM)+$(KEYS)+iekvd:factor=2,layers=4+$(LAST)
ablation-glyphs-dit: ENDS = todo:factor=2,layers=4+iekvd:factor=2,layers=5,alpha=0.5
ablation-glyphs-dit: $(STAMP)
	$(BIN)/bigain evaluate --model glyphs-dit $(ABLATED) --out runs/ablation/glyphs-dit --timing-rounds 0 \
		--equal-flops "$(MATCHED)" -m "tome:ratio=0.5,$(RANDOM) tome:ratio=0.5,$(RANDOM),size_aware=true \
		tome:ratio=0.5,$(HERE) tome:ratio=0.5,$(HERE),size_aware=true abm:ratio=0.5,$(PLACED) \
		tome:ratio=0.5,cell=4x4,$(HERE) tome:ratio=0.5,cell=4x4,$(HERE),queries=full \
		tome:ratio=0.5,cell=4x4,$(HERE),queries=full,size_aware=true tome:ratio=0.5,$(HERE),features=first \
		abm:ratio=0.5,$(PLACED),features=first $(BLOCKS) $(BLOCKS),features=first"
	$(BIN)/bigain evaluate --model glyphs-dit $(ABLATED) --out runs/ablation/glyphs-dit \
		-m "glyphs-dit/quality tome:ratio=0.75>0.336,$(HERE) tome:ratio=0.336>0.75,$(HERE) avgpool:factor=2,$(PLACED) iekvd:factor=2,$(PLACED) \
		avgpool:factor=4,layers=0+iekvd:factor=2,layers=2+$(ENDS) \
		avgpool:factor=4,layers=0+iekvd:factor=4,layers=2/4+iekvd:factor=2,layers=5,alpha=0.5 \
		avgpool:factor=4,layers=0+avgpool:factor=2,layers=1+iekvd:factor=2,layers=2+$(ENDS)"
	$(BIN)/bigain report runs/ablation/glyphs-dit/results.sqlite --export results/ablation-glyphs-dit.json
ablation-glyphs-sd: BOTH = levels=1/2,locations=self_attention/mlp
ablation-glyphs-sd: COARSE = levels=2,locations=self_attention/mlp,size_aware=true,$(RANDOM)
ablation-glyphs-sd: MERGED = tome:ratio=0.9,cell=4x4,layers=1/2/4,$(COARSE)+tome:ratio=0.5,layers=3,$(COARSE)
ablation-glyphs-sd: FIRST = avgpool:factor=2,layers=0+$(MERGED)
ablation-glyphs-sd: LAST_TWO = avgpool:factor=2,layers=5/6+$(MERGED)
ablation-glyphs-sd: $(STAMP)
	$(BIN)/bigain evaluate --model glyphs-sd $(ABLATED) --out runs/ablation/glyphs-sd --timing-rounds 0 \
		--equal-flops glyphs-sd/balanced -m "tome:ratio=0.5,$(RANDOM),$(BOTH) tome:ratio=0.5,$(RANDOM),size_aware=true,$(BOTH)"
	$(BIN)/bigain evaluate --model glyphs-sd $(ABLATED) --out runs/ablation/glyphs-sd -m "avgpool:factor=2 glyphs-sd/quality $(FIRST) $(LAST_TWO) \
		tome:ratio=0.75,levels=2,locations=self_attention/mlp,$(RANDOM) avgpool:factor=2,levels=1/2"
	$(BIN)/bigain report runs/ablation/glyphs-sd/results.sqlite --export results/ablation-glyphs-sd.json

readme: readme-glyphs-dit readme-glyphs-sd ## the tables and pictures of README.md and docs/results.md, from results/
	$(BIN)/bigain report results/glyphs-sd.json --beside results/glyphs-dit.json --readme README.md \
		-m "tome:ratio=0.5,$(RANDOM) lgtm-0.5 abm-0.5 sito-0.5 todo-2 avgpool-2 iekvd-2" \
		-m "$(foreach model,glyphs-dit glyphs-sd,$(foreach preset,quality balanced fast,$(model)/$(preset)))"

readme-%: $(STAMP)
	$(BIN)/bigain report results/$*.json --readme docs/results.md --out runs/report/$*
	$(BIN)/bigain report results/ablation-$*.json --readme docs/results.md
	$(if $(wildcard results/float32-$*.json),$(BIN)/bigain report results/float32-$*.json --readme docs/results.md)
	mkdir -p docs/pictures
	cp runs/report/$*/front.png docs/pictures/front-$*.png

pictures: $(STAMP) ## the pictures of docs/method.md
	mkdir -p docs/pictures
	$(BIN)/bigain inspect -m lgtm-0.5 --image 3 --timestep 100 --out docs/pictures/method-inspect.png
	$(BIN)/bigain analyse -m "lgtm-0.5 todo-2 avgpool-2 iekvd-2" --images 4 --dtype bfloat16 --out runs/pictures
	cp runs/pictures/spectrum-1.png docs/pictures/method-spectrum.png
	$(BIN)/bigain analyse -m "glyphs-dit/balanced avgpool-2 iekvd-2" --images 24 --dtype bfloat16 --out runs/timesteps
	cp runs/timesteps/timesteps.png docs/pictures/method-timesteps.png

benchmarks: $(STAMP) ## minutes: the table of docs/speed.md, and our ToMe beside tomesd's
	$(BIN)/python benchmarks/break_even.py --docs docs/speed.md
	$(BIN)/python benchmarks/peer.py

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
	$(BIN)/python training/train_recogniser.py

clean: ## removes caches and builds; keeps .venv and runs
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests training -name __pycache__ -type d -prune -exec rm -rf {} +
