# SPDX-License-Identifier: BSD-3-Clause
#
# The door to everything; the work is done by Meson, scripts/ and tests/run.

PREFIX ?= /usr/local
DESTDIR ?=
# What `meson setup` gets; .ci/run says -Dwerror=true here.
MESONFLAGS ?= -Dwerror=false
# What tests/run gets: suites or names of tests, see `tests/run --help`.
TESTS ?=
# What tests/bench/run gets: names of sections, see `tests/bench/run --help`.
BENCH ?=

export MESONFLAGS

.PHONY: all build run test bench install clean help format tidy
.DEFAULT_GOAL := all

all: build

help:
	@echo 'make            build build/penstock'
	@echo 'make run        boot a Linux guest on a disk that penstock serves, and check its data'
	@echo 'make test       build and run all tests (TESTS="unit guest/crash" runs some)'
	@echo 'make bench      measure, side by side with what QEMU has (BENCH="scsi ladder" measures some of it)'
	@echo 'make install    install under PREFIX ($(PREFIX)), below DESTDIR'
	@echo 'make format     lay the C sources out by .clang-format'
	@echo 'make tidy       run clang-tidy over the C sources'
	@echo 'make clean      remove the build directories, and the disk image of make run'

build:
	@scripts/install-packages build
	@scripts/build build

run:
	@scripts/install-packages build run
	@scripts/build build
	@scripts/demo

test:
	@scripts/install-packages build run test
	@tests/run $(TESTS)

bench:
	@scripts/install-packages build bench
	@scripts/build build
	@tests/bench/run $(BENCH)

install: build
	meson configure build -Dprefix=$(PREFIX)
	DESTDIR=$(DESTDIR) meson install -C build

clean:
	rm -rf build build-asan build-tsan build-fuzz

format:
	@scripts/install-packages develop
	find src tests docs -name '*.[ch]' -exec clang-format -i {} +

tidy:
	@scripts/install-packages build test develop
	@scripts/build build
	find src -name '*.c' -exec clang-tidy -p build --quiet {} +
