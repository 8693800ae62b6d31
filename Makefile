# SPDX-License-Identifier: Apache-2.0
# xusbip: one makefile for everything; "make help" lists the targets.
#
# A folder is a module: its sources are whatever it holds, without the mains
# one static archive, so a program or a test links only what it uses. Variants
# (clang, sanitizers, fuzzing) build the same tree into a folder of their own
# below build/.

PREFIX       ?= /usr/local
SYSCONFDIR   ?= /etc
DESTDIR      ?=
V            ?= 0
WERROR       ?= -Werror
FUZZ_SECONDS ?= 60
TEST_JOBS    ?= 2

.DEFAULT_GOAL := all
comma := ,
Q := $(if $(filter 1,$(V)),,@)

# "make deps check": the parts of check must not start before deps is done.
ifneq ($(filter deps,$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif

# ---- variants ---------------------------------------------------------------

IS_CLANG := $(findstring clang,$(CC))
ROOT_BUILD := build
ifneq ($(FUZZ),)
BUILD := $(ROOT_BUILD)/fuzz
SANITIZE := -fsanitize=fuzzer-no-link,address,undefined
else ifneq ($(SAN),)
BUILD := $(ROOT_BUILD)/$(if $(IS_CLANG),clang-)san-$(subst $(comma),-,$(SAN))
SANITIZE := -fsanitize=$(SAN)
else ifneq ($(IS_CLANG),)
BUILD := $(ROOT_BUILD)/clang
else
BUILD := $(ROOT_BUILD)
endif

# ---- flags ------------------------------------------------------------------

# Asked when first used, not when make starts: "make deps" may only now be
# installing what pkg-config looks for.
once = $(eval $(1) := $(2))$($(1))
PKGS := libusb-1.0 libconfuse json-c libseccomp libcap-ng libudev \
        openssl xenvchan xenevtchn xenstore
PKG_CPPFLAGS = $(call once,PKG_CPPFLAGS,$(subst -I,-isystem ,\
               $(shell pkg-config --cflags $(PKGS))))
PKG_LIBS = $(call once,PKG_LIBS,$(shell pkg-config --libs $(PKGS)))
TEST_LIBS = $(call once,TEST_LIBS,$(shell pkg-config --libs cmocka))

CFLAGS ?= -O2 -g
WARN := -Wall -Wextra $(WERROR) -Wshadow -Wstrict-prototypes \
        -Wmissing-prototypes -Wold-style-definition -Wvla -Wformat=2 -Wundef \
        -Wpointer-arith -Wwrite-strings -Wcast-qual -Wimplicit-fallthrough \
        -Wnull-dereference
HARDEN := -fPIE -fstack-protector-strong -fstack-clash-protection \
          -fno-strict-overflow
# clang 14 hides this one behind a flag that says it will be removed.
HARDEN += $(if $(IS_CLANG),,-ftrivial-auto-var-init=zero)
HARDEN += $(if $(filter x86_64,$(shell uname -m)),-fcf-protection)

ifneq ($(SANITIZE),)
SANITIZE += -fno-sanitize-recover=all -fno-omit-frame-pointer
# gcc warns about the paths that the sanitizers' own checks add.
WARN += $(if $(IS_CLANG),,-Wno-null-dereference -Wno-maybe-uninitialized)
else
HARDEN_CPPFLAGS := -D_FORTIFY_SOURCE=2
endif

ALL_CPPFLAGS = -I. -D_GNU_SOURCE $(HARDEN_CPPFLAGS) $(PKG_CPPFLAGS) $(CPPFLAGS)
ALL_CFLAGS = -std=c11 $(WARN) $(HARDEN) $(CFLAGS) $(SANITIZE)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed $(SANITIZE) \
              $(LDFLAGS)

# ---- what there is ----------------------------------------------------------

mains := gateway/main.c frontend/agent_main.c frontend/xusbip_main.c
modules := vchan-transport gateway frontend tests/fake
module_sources = $(filter-out $(mains),$(wildcard $(1)/*.c))

unit_sources := $(wildcard tests/unit/test_*.c)
fuzz_sources := $(wildcard tests/fuzz/fuzz_*.c)
# Programs of one file each that the tests and the benchmarks run.
tool_sources := $(wildcard $(addsuffix /*.c,$(addprefix tests/,\
                vm xen integration bench)))
models       := $(wildcard tests/model/*.pml)
# To be preloaded: into programs, and into xenstored.
fake_xen_sources := $(wildcard tests/fake/xen/*.c)

sources := $(wildcard $(mains)) $(unit_sources) $(tool_sources) \
           $(fake_xen_sources) \
           $(foreach m,$(modules),$(call module_sources,$(m)))
headers := $(wildcard $(addsuffix /*.h,$(modules) tests/unit tests/fuzz \
             tests/fake/xen))

objects   := $(sources:%.c=$(BUILD)/%.o)
archives  := $(foreach m,tests/fake gateway frontend vchan-transport,\
               $(BUILD)/lib$(notdir $(m)).a)
unit_bins := $(unit_sources:%.c=$(BUILD)/%)
fuzz_bins := $(fuzz_sources:%.c=$(BUILD)/%)
tool_bins := $(tool_sources:%.c=$(BUILD)/%)
preloads  := $(BUILD)/fake_xen.so $(BUILD)/fake_xenstored.so
programs  := $(if $(wildcard gateway/main.c),$(BUILD)/xusbip-gateway) \
             $(if $(wildcard frontend/agent_main.c),$(BUILD)/xusbip-frontend) \
             $(if $(wildcard frontend/xusbip_main.c),$(BUILD)/xusbip)

# Tests find the programs of the variant under test here.
export XUSBIP_BUILD := $(abspath $(BUILD))

# ---- building ---------------------------------------------------------------

.PHONY: all deps tests objects
all: $(programs)	## build the daemons and the command

tests: all $(unit_bins) $(tool_bins) $(preloads)	## build the tests and their helpers

objects: $(objects)

deps:	## install what building, tests and lint need (Debian, as root)
	$(Q)tests/install-deps

$(BUILD)/xusbip-gateway: $(BUILD)/gateway/main.o $(BUILD)/libgateway.a
$(BUILD)/xusbip-frontend: $(BUILD)/frontend/agent_main.o $(BUILD)/libfrontend.a
$(BUILD)/xusbip: $(BUILD)/frontend/xusbip_main.o $(BUILD)/libfrontend.a
$(programs): $(BUILD)/libvchan-transport.a

$(programs):
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(unit_bins) $(tool_bins): %: %.o $(archives)
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(TEST_LIBS) $(PKG_LIBS)

$(fuzz_bins): %: %.o $(archives)
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(PKG_LIBS)

# Without a sanitizer: the program that it goes into has the runtime, or none.
$(fake_xen_sources:%.c=$(BUILD)/%.o): HARDEN += -fPIC
$(fake_xen_sources:%.c=$(BUILD)/%.o): SANITIZE :=
$(BUILD)/fake_xen.so: $(BUILD)/tests/fake/xen/fake_xen.o
$(BUILD)/fake_xenstored.so: $(fake_xen_sources:%.c=$(BUILD)/%.o)
$(preloads):
	@echo "  LD    $@"
	$(Q)$(CC) -shared -Wl,-z,defs $(LDFLAGS) -o $@ $^

define archive_rule
$$(BUILD)/lib$(notdir $(1)).a: $$(patsubst %.c,$$(BUILD)/%.o,\
                               $(call module_sources,$(1)))
	@mkdir -p $$(@D)
	$$(Q)rm -f $$@ && $$(AR) rcsD $$@ $$^
endef
$(foreach m,$(modules),$(eval $(call archive_rule,$(m))))

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

.SECONDARY:

# ---- tests ------------------------------------------------------------------

.PHONY: check check-unit check-san check-fuzz check-model check-clang \
        check-integration check-vm check-xen fuzz demo demo-xen bench

# The guests of vm have one CPU and want it for themselves; what needs no guest
# has the others meanwhile, under a lock, and its output comes when it is done.
# Then xen, whose guests want one CPU each, has all of them.
CHECK := $(ROOT_BUILD)/check
check: export CPU_LOCK = $(abspath $(CHECK)/cpu)
check:	## every test there is; the last line is the sum
	$(Q)rm -rf $(CHECK); mkdir -p $(CHECK); \
	run() { tests/run-step $$2 $$1 $(MAKE) --no-print-directory \
		-j$(TEST_JOBS) TEST_JOBS=$(TEST_JOBS) check-$$1; }; \
	for step in build lint unit; do run $$step; done; \
	(flock 9; for step in clang integration san fuzz model; do \
		run $$step -b; done) 9> $$CPU_LOCK > $(CHECK)/beside & \
	for step in vm xen; do run $$step; done; \
	wait; cat $(CHECK)/beside; tests/run-step --sum

.PHONY: check-build check-lint
check-build: tests
	@echo "ok - everything builds with $(CC)"

check-lint: lint

check-unit: $(unit_bins)	## unit tests
	$(Q)CMOCKA_MESSAGE_OUTPUT=TAP tests/run-tests -j $(TEST_JOBS) -t 240 \
		$(sort $(unit_bins))

check-integration: tests	## the real programs, on this machine
	$(Q)tests/run-tests -j $(TEST_JOBS) -t 600 \
		$(sort $(wildcard tests/integration/test_*.py))

# One at a time: limits in these tests are seconds of a guest that has a CPU.
check-vm: tests	## the real programs in guests with a stock kernel
	$(Q)CPU_LOCK= TEST_JOBS=1 tests/vm/run

check-xen: tests	## the real programs on real Xen, with guests of its own
	$(Q)tests/xen/run

check-san:	## unit and integration tests under ASan and UBSan
	$(Q)$(MAKE) --no-print-directory SAN=address,undefined tests
	$(Q)rc=0; for step in unit integration; do \
		$(MAKE) --no-print-directory SAN=address,undefined \
			check-$$step || rc=1; \
	done; exit $$rc

check-clang:	## a build of everything with clang
	$(Q)$(MAKE) --no-print-directory CC=clang check-build

check-fuzz:	## each seed and each old finding once through its fuzz target
	$(Q)$(MAKE) --no-print-directory FUZZ=1 CC=clang fuzz-bins
	$(Q)tests/run-fuzz replay $(fuzz_sources)

fuzz:	## fuzz each target for FUZZ_SECONDS
	$(Q)$(MAKE) --no-print-directory FUZZ=1 CC=clang fuzz-bins
	$(Q)tests/run-fuzz $(FUZZ_SECONDS) $(fuzz_sources)

.PHONY: fuzz-bins
fuzz-bins: $(fuzz_bins)

check-model:	## the Promela models, with spin
	$(Q)rc=0; tests/run-model $(models) || rc=1; \
		tests/model/truncated || rc=1; \
		tests/model/mutants || rc=1; exit $$rc

demo: all	## a guest takes a virtual disk of this machine, step by step
	$(Q)tests/demo

demo-xen: tests	## the same on real Xen: dom0 and a guest without a network
	$(Q)tests/demo-xen

bench: tests	## instructions per operation, beside the kernel's own; TLS, Xen too
	$(Q)tests/xen/xen-image
	$(Q)tests/bench/run
	$(Q)tests/bench/run-tls
	$(Q)tests/bench/run-xen

# ---- lint -------------------------------------------------------------------

.PHONY: lint format states tidy
lint:	## format, clang-tidy, cppcheck, shellcheck, mandoc, codespell and more
	$(Q)tests/lint/run

format:	## rewrite the C sources in the house style
	$(Q)clang-format -i $(sources) $(fuzz_sources) $(headers)

states:	## write docs/states.md from the tables of the state machines
	$(Q)tests/lint/states --write

# The object knows which headers its source includes: when one of them
# changes, it is made again, and so is this.
tidy_stamps := $(patsubst %.c,$(BUILD)/lint/%.tidy,$(sources) $(fuzz_sources))
tidy: $(tidy_stamps)
$(BUILD)/lint/%.tidy: %.c $(BUILD)/%.o .clang-tidy
	@mkdir -p $(@D)
	@echo "  TIDY  $<"
	$(Q)clang-tidy --quiet $< -- $(ALL_CPPFLAGS) -std=c11 2>$@.err || \
		{ cat $@.err; exit 1; }
	$(Q)touch $@

# ---- installing -------------------------------------------------------------

# One line for each kind of file: mode, the folder it goes to, the files.
# etc/xusbip-NAME.conf becomes /etc/xusbip/NAME.conf; a unit is told PREFIX.
define install_kinds
0755 $(PREFIX)/sbin $(filter %-gateway %-frontend,$(programs))
0755 $(PREFIX)/bin $(filter %/xusbip,$(programs))
0755 $(PREFIX)/bin $(wildcard certs/xusbip-ca)
0644 $(PREFIX)/share/man/man1 $(wildcard docs/man/*.1)
0644 $(PREFIX)/share/man/man5 $(wildcard docs/man/*.5)
0644 $(PREFIX)/share/man/man8 $(wildcard docs/man/*.8)
0644 $(PREFIX)/lib/systemd/system $(wildcard etc/systemd/*.*)
0644 $(PREFIX)/lib/tmpfiles.d $(wildcard etc/tmpfiles.d/*.conf)
0644 $(PREFIX)/lib/sysusers.d $(wildcard etc/sysusers.d/*.conf)
0644 $(PREFIX)/lib/modules-load.d $(wildcard etc/modules-load.d/*.conf)
0644 $(PREFIX)/lib/modprobe.d $(wildcard etc/modprobe.d/*.conf)
0755 $(PREFIX)/lib/systemd/system-sleep $(wildcard etc/systemd-sleep/*)
0755 $(PREFIX)/sbin $(wildcard etc/xen/xusbip-xl)
0644 $(PREFIX)/share/doc/xusbip/examples $(wildcard etc/avahi/*.service)
0644 $(PREFIX)/lib/udev/rules.d $(wildcard etc/udev/*.rules)
0644 $(PREFIX)/share/bash-completion/completions $(wildcard etc/completion/*)
endef
export install_kinds
config_files := $(wildcard etc/xusbip-*.conf)

.PHONY: install uninstall clean help
install: all	## install below PREFIX; configuration that is there stays
	$(Q)echo "$$install_kinds" | while read -r mode place files; do \
		[ -n "$$files" ] || continue; \
		install -d "$(DESTDIR)$$place"; \
		install -m $$mode $$files "$(DESTDIR)$$place" || exit 1; \
	done
	$(Q)for unit in $(notdir $(wildcard etc/systemd/*.*)); do \
		sed -i 's,/usr/\(s*bin/xusbip\),$(PREFIX)/\1,' \
			"$(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit"; \
	done
	$(Q)for file in $(config_files); do \
		to=$(DESTDIR)$(SYSCONFDIR)/xusbip/$${file#etc/xusbip-}; \
		[ -e "$$to" ] || install -D -m 0644 $$file "$$to"; \
	done

uninstall:	## remove what install put there, but for configuration
	$(Q)echo "$$install_kinds" | while read -r mode place files; do \
		for file in $$files; do \
			rm -f "$(DESTDIR)$$place/$${file##*/}"; \
		done; \
	done

clean:	## remove what was built
	rm -rf $(ROOT_BUILD)

help:	## list the targets
	@sed -n 's/^\([a-z-]*\):.*	## /  \1\t/p' Makefile | expand -t 20

-include $(objects:.o=.d) $(fuzz_sources:%.c=$(BUILD)/%.d)
