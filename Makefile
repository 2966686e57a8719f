# Each target is one call; where there is no make, type the call (see README.md).
PYTHON ?= python3
SCALE ?= smoke

.PHONY: book test test-full render edition publish labs
book:
	@$(PYTHON) -m lottolab book --scale $(SCALE)
test:
	@$(PYTHON) -m lottolab test
test-full:
	@$(PYTHON) -m lottolab test --full
render:
	@$(PYTHON) -m lottolab render
edition:
	@$(PYTHON) -m lottolab run --all --scale edition
publish:
	@$(PYTHON) -m lottolab publish
labs:
	@$(PYTHON) -m lottolab labs build
