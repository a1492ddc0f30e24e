# Every target is idempotent and quick when nothing changed. What costs minutes is kept in the cache
# folder (ARCA_CACHE, default ~/.cache/arca) and shared by all checkouts of a user.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup kernel initramfs vminit build run stop test lint fuzz clean distclean

help:            ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup:           ## install packages and tools (packages: as root)
	@scripts/setup.sh run test

kernel:          ## build/kernel/bzImage, the kernel of all VMs (5 min once)
	@kernel/build.sh

initramfs:       ## build/initramfs/initramfs.cpio, with arca-init as PID 1
	@scripts/setup.sh rust
	@initramfs/build.sh

vminit: initramfs ## the other name of initramfs

build:           ## all that the daemon needs, and target/release/arca
	@scripts/build.sh

run:             ## build, start a daemon, run a first container
	@scripts/run.sh

stop:            ## stop the daemon of `make run`
	@scripts/run.sh stop

test:            ## every test, with all set-up
	@scripts/test.sh

lint:            ## formatting, clippy, shellcheck, licences and advisories
	@scripts/lint.sh

fuzz:            ## coverage-guided fuzzing: TIME=60 seconds for each target, TARGET="a b"
	@scripts/fuzz.sh $(or $(TIME),60) $(TARGET)

clean:           ## remove what was built here (the cache stays)
	@rm -rf build
	@cargo clean

distclean: clean ## and the cache: kernel, tools
	@scripts/distclean.sh
