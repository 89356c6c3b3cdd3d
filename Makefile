# make run          the default study: environment, tables, figures, report
# make report       its report and page of features alone
# make test         formatting, types, unit tests and the whole workflow on a tiny model
# make lint         formatting and types alone
# make chaos        the tiny study killed 25 times at random moments: about a quarter of an hour
# make bench        the benchmarks (benchmarks/README.md): about an hour on two idle cores
# make environment  .venv alone
# make peers        .venv-peers alone: the libraries that benchmarks compare with
# make docs         pages of the library's docstrings, in docs/_build
# make pictures     of the report and the page of features, for the README; needs Chromium
# make rulegraph    the picture of the rules in the README, anew; needs graphviz
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
PEERS := .venv-peers
PEERS_INSTALLED := $(PEERS)/.installed
STUDY := results/$(shell sed -n "s/^study: *//p" config.yaml)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

BENCHMARKS := linear shards extraction sampling probing threads scaling rounding
BENCHMARKS_WITH_PEERS := training_step matching

.PHONY: environment run report pictures lint test chaos bench peers docs rulegraph

run: $(INSTALLED)
	snakemake --cores all --workflow-profile workflow/profiles/default
	$(MAKE) --no-print-directory report
	@echo
	@echo "tables   $(STUDY)/tables/   start with summary.csv"
	@echo "figures  $(STUDY)/figures/"
	@echo "features $(STUDY)/features.html"
	@echo "report   $(STUDY)/report.html"

environment: $(INSTALLED)

report: $(INSTALLED)
	snakemake --cores all --workflow-profile workflow/profiles/default features
	snakemake --report $(STUDY)/report.html all features

pictures: report
	python tests/pictures.py $(STUDY)

lint: $(INSTALLED)
	pre-commit run --all-files --show-diff-on-failure

# Files side by side: two processes fill two cores, a file's tests share what they prepared. In the
# order of tests/conftest.py: the slowest files first.
test: lint
	pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

chaos: $(INSTALLED)
	python tests/chaos.py --kills 25

docs: $(INSTALLED)
	python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build
	@echo docs/_build/index.html

# Arrows that others imply are left out (tred), or the picture could not be read.
rulegraph: $(INSTALLED)
	@command -v tred >/dev/null || { echo "graphviz is needed: apt install graphviz"; exit 1; }
	mkdir -p docs/_build
	snakemake --rulegraph > docs/_build/rules.dot
	tred docs/_build/rules.dot | dot -Granksep=0.3 -Gnodesep=0.2 -Tsvg -o docs/rulegraph.svg

peers: $(INSTALLED) $(PEERS_INSTALLED)

bench: $(INSTALLED) $(PEERS_INSTALLED)
	set -e; for name in $(BENCHMARKS_WITH_PEERS); do $(PEERS)/bin/python benchmarks/$$name.py; done
	set -e; for name in $(BENCHMARKS); do python benchmarks/$$name.py; done

# Beside the packages of the environment that is active, so that torch is there once.
SITE_PACKAGES := import sysconfig; print(sysconfig.get_path("purelib"))
$(PEERS_INSTALLED): benchmarks/peers.txt benchmarks/peers-no-deps.txt
	python -m venv $(PEERS)
	python -c '$(SITE_PACKAGES)' > "$$($(PEERS)/bin/python -c '$(SITE_PACKAGES)')/beside.pth"
	$(PEERS)/bin/pip install --quiet --requirement benchmarks/peers.txt
	$(PEERS)/bin/pip install --quiet --no-deps --requirement benchmarks/peers-no-deps.txt
	touch $@

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is incomplete: on Debian or Ubuntu, apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable '.[dev]'
	touch $@
