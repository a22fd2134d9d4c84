# SPDX-License-Identifier: Apache-2.0
# The short way to everything; CMakePresets.json has the rest. Needs make and bash, and brings what else it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help serve test soak bench install check format clean

SETUP ?= tools/setup
MEMORY ?= 16M
PREFIX ?= /usr/local
BENCH ?= *
SOAK ?= 600

# $(call configure,preset): quiet unless it fails.
define configure
@echo "configuring build/$(1)"
@mkdir -p build && { cmake --preset $(1) > build/configure-$(1).log 2>&1 || { cat build/configure-$(1).log; exit 1; }; }
endef

help:
	@echo "make serve    build the program and serve a disk over NBD: MEMORY=$(MEMORY) IMAGE=path... ARGS='--listen ...'"
	@echo "make test     build everything and run the tests: TESTS=regular-expression"
	@echo "make soak     create and end coroutines and tasks at random, in all threads: SOAK=$(SOAK) seconds"
	@echo "make bench    run the benchmarks, report into bench/out: BENCH=name"
	@echo "make install  install libraries, headers and the program: PREFIX=$(PREFIX) DESTDIR="
	@echo "make check    layers, style and format of the sources"
	@echo "make format   format the sources"
	@echo "make clean    remove build/ and bench/out/"
	@echo "Missing Debian packages are installed first, by tools/setup; SETUP=true leaves that out."

serve:
	@$(SETUP) build
	$(call configure,release)
	@echo "building build/release/larder"
	@cmake --build --preset release --target larder_program
	@build/release/larder serve --memory $(MEMORY) $(IMAGE) $(ARGS)

test:
	@$(SETUP) test
	$(call configure,release)
	@echo "building build/release"
	@cmake --build --preset release
	@echo "testing build/release"
	@ctest --preset release --progress --output-junit $(CURDIR)/build/release/tests.xml $(if $(TESTS),-R '$(TESTS)')

soak:
	@$(SETUP) test
	$(call configure,release)
	@echo "building build/release/tests/larder_soak_test"
	@cmake --build --preset release --target larder_soak_test
	@LARDER_SOAK_SECONDS=$(SOAK) build/release/tests/larder_soak_test

bench:
	@$(SETUP) bench
	$(call configure,release)
	@echo "building build/release"
	@cmake --build --preset release
	@tools/bench_report '$(BENCH)'

install:
	@$(SETUP) build
	$(call configure,release)
	@echo "building build/release"
	@cmake --build --preset release --target larder_static larder_shared larder_program
	@echo "installing to $(DESTDIR)$(PREFIX)"
	@DESTDIR='$(DESTDIR)' cmake --install build/release --prefix '$(PREFIX)' > build/install.log
	@echo "the files are listed in build/release/install_manifest.txt"

check:
	@$(SETUP) ci
	@tools/check_layers
	@tools/check_style
	@tools/format --check

format:
	@$(SETUP) ci
	@tools/format

clean:
	@echo "removing build/ and bench/out/"
	@rm -rf build bench/out
