# railccl: `make demo` shows it, `make check` proves it, `make help` lists the rest.

CC      ?= gcc
AR      ?= ar
BUILD   ?= build
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
DESTDIR ?=
V       ?= 0
OPT     ?= -O2 $(if $(SAN),-g1,-g)
SAN     ?=
JOBS    ?= $(shell nproc)

VERSION := $(shell cat VERSION)
ARCH    := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
Q       := $(if $(filter 0,$(V)),@)
comma   := ,
say      = $(if $(filter 0,$(V)),@printf '  %-5s %s\n' $(1) $(2))

WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wundef \
           -Wvla -Wformat=2 -Wwrite-strings -Werror
CFLAGS_ := -std=c11 -D_GNU_SOURCE $(OPT) $(SAN) $(WARN) -fPIC -fvisibility=hidden -fno-math-errno -ffp-contract=off \
           -fno-strict-aliasing -pthread -Iinclude -Isrc -MMD -MP -DRAILCCL_VERSION='"$(VERSION)"'

SRC     := $(sort $(shell find src -name '*.c'))
ifneq ($(ARCH),x86_64)
SRC     := $(filter-out %_avx2.c %_avx512.c,$(SRC))
endif
# What sanitizers do not watch: their build folders take it from the plain one.
PLAIN   ?= build
UNWATCHED := $(if $(SAN),$(patsubst %.c,$(PLAIN)/%.o,$(filter %_avx2.c %_avx512.c,$(SRC))))
OBJ     := $(patsubst %.c,$(BUILD)/%.o,$(if $(SAN),$(filter-out %_avx2.c %_avx512.c,$(SRC)),$(SRC))) $(UNWATCHED) $(BUILD)/kernel_image.o
LIB     := $(BUILD)/lib/libnccl.so.2
ARCHIVE := $(BUILD)/librail.a
# libsodium, libexpat and libjansson are linked in statically and hidden.
SODIUM  ?= $(shell $(CC) -print-file-name=libsodium.a)
EXPAT   ?= $(shell $(CC) -print-file-name=libexpat.a)
JANSSON ?= $(shell $(CC) -print-file-name=libjansson.a)
OBJCOPY ?= $(shell $(CC) -print-prog-name=objcopy)
STATIC  := $(SODIUM) $(EXPAT) $(BUILD)/libjansson.a

PERF    := $(patsubst perf/%.c,$(BUILD)/bin/%,$(wildcard perf/*_perf.c))
PERFOBJ := $(patsubst %.c,$(BUILD)/%.o,$(filter-out %_perf.c,$(wildcard perf/*.c)))
METER   := $(BUILD)/tests/rails/fault_meter
METER_PERF := buffers gpu types values
TOOLOBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/*.c))
TOOL    := $(if $(TOOLOBJ),$(BUILD)/bin/railccl)
EXAMPLES := $(patsubst %.c,$(BUILD)/bin/%,$(wildcard examples/*.c))
TESTSRC := $(sort $(shell find tests -name 'test_*.c'))
TESTS   := $(TESTSRC:%.c=$(BUILD)/%)
SUPPORT := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))

all: $(LIB) $(PERF) $(TOOL) $(EXAMPLES) ## build the library and the programs (default)

# ---- compiling and linking ------------------------------------------------------------------------------------------

$(BUILD)/%_avx2.o: FILE_CFLAGS += -mavx2 -mf16c
$(BUILD)/%_avx512.o: FILE_CFLAGS += -mavx2 -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512
# The arithmetic is hundreds of kernels out of one template: optimised where speed counts, and without debug information,
# which would cost half of its compile time.
DEVICE_OPT ?= $(if $(SAN),-O1,-O3)
$(BUILD)/src/device/%.o: FILE_CFLAGS += -g0 $(DEVICE_OPT)
$(BUILD)/src/device/cuda/%.o: FILE_CFLAGS += -g $(OPT)
# One template makes all three files: under sanitizers the portable one is watched; the others, which are compared with it bit
# by bit, are those of the plain build.
ifneq ($(SAN),)
$(UNWATCHED): FORCE
	$(Q)$(MAKE) -s --no-print-directory BUILD=$(PLAIN) SAN= $@
endif
# Sanitizers make of a test three times the code: here with the lines that a report names and no more, optimised once, where gcc
# warns of what the plain build knows to be well.
$(BUILD)/tests/%.o: FILE_CFLAGS += -Itests -I. -Wno-missing-prototypes \
                    $(if $(SAN),-O1 -g1 $(if $(findstring clang,$(CC)),,-Wno-format-truncation -Wno-maybe-uninitialized))

$(BUILD)/%.o: %.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_) $(FILE_CFLAGS) $(CFLAGS) -c $< -o $@

# What is built against a header that may be missing is built again when the header comes or goes.
OPTIONAL := $(wildcard /usr/include/hwloc.h /usr/include/infiniband/verbs.h /usr/include/rdma/rdma_cma.h)
$(BUILD)/optional.list: FORCE
	@mkdir -p $(@D)
	@echo '$(OPTIONAL)' | cmp -s - $@ || echo '$(OPTIONAL)' >$@
$(filter $(BUILD)/src/foreign/% $(BUILD)/src/topo/hwloc_% $(BUILD)/src/transport/lane/%,$(OBJ)): $(BUILD)/optional.list

# Rewritten when the list of objects changes, so that a removed file leaves the archive too.
$(BUILD)/objects.list: FORCE
	@mkdir -p $(@D)
	@echo '$(OBJ)' | cmp -s - $@ || echo '$(OBJ)' >$@

$(ARCHIVE): $(OBJ) $(BUILD)/objects.list
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $(OBJ)

# Debian's archive is position-independent but for one place: a function that we do not use compares with stdin, which a
# shared object cannot reach so. It gets one of our own (foreign/jansson.c).
$(BUILD)/libjansson.a: $(JANSSON)
	@mkdir -p $(@D)
	$(Q)$(OBJCOPY) --redefine-sym stdin=rail_jansson_stdin $< $@
$(LIB) $(TOOL) $(TESTS) $(BUILD)/tests/device/bench_combine: | $(BUILD)/libjansson.a

# ---- the kernel for GPUs --------------------------------------------------------------------------------------------

# PTX that every driver since CUDA 10 can read, from clang where there is one (seconds; its PTX is of an old version, on
# purpose, and packed as old drivers can unpack it), else from nvcc; with ptxas and fatbinary also machine code for KERNEL_SM, so that the driver need not compile
# (some seconds, once per machine). With none of them the library is built without: RAILCCL_CUDA_KERNEL can name an image.
# It depends on no other setting, so all build folders share it.
CUDA_BIN  ?= $(firstword $(wildcard $(CUDA_HOME)/bin /usr/local/cuda/bin))
CLANG     ?= clang
KERNEL_SM ?= 80 90
KERNEL_BUILD ?= build/kernel
KERNEL_SRC := src/engine/interpreter.cu $(wildcard src/engine/kernel*.h src/device/cuda/*.h src/plan/*.h) src/device/host.h src/device/number_facts.h
KERNEL_BY := $(if $(findstring nvptx64,$(shell $(CLANG) --print-targets 2>/dev/null)),clang,$(if $(wildcard $(CUDA_BIN)/nvcc),nvcc))
KERNEL_FAT := $(if $(KERNEL_BY),$(and $(KERNEL_SM),$(wildcard $(CUDA_BIN)/ptxas),$(wildcard $(CUDA_BIN)/fatbinary)))
KERNEL_PTX_clang = $(CLANG) -x cuda -nocudainc -nocudalib --cuda-device-only -S --cuda-gpu-arch=sm_75 -O2 -ffp-contract=off \
    -Wall -Wextra -Werror -Wno-unknown-cuda-version
KERNEL_PTX_nvcc = $(CUDA_BIN)/nvcc -ptx -arch=compute_75 -O3 -fmad=false
KERNEL_IMAGE := $(if $(KERNEL_FAT),$(KERNEL_BUILD)/kernel.fatbin,$(if $(KERNEL_BY),$(KERNEL_BUILD)/kernel.ptx))

$(KERNEL_BUILD)/kernel.ptx: $(KERNEL_SRC)
	$(call say,PTX,$<)
	@mkdir -p $(@D)
	$(Q)$(KERNEL_PTX_$(KERNEL_BY)) -Isrc -o $@ $<
$(KERNEL_BUILD)/kernel.%.cubin: $(KERNEL_BUILD)/kernel.ptx
	$(call say,SASS,$@)
	$(Q)$(CUDA_BIN)/ptxas -arch=sm_$* -o $@ $<
$(KERNEL_BUILD)/kernel.fatbin: $(KERNEL_BUILD)/kernel.ptx $(KERNEL_SM:%=$(KERNEL_BUILD)/kernel.%.cubin)
	$(Q)$(CUDA_BIN)/fatbinary --create=$@ -64 --compress-all --compress-mode=speed --image3=kind=ptx,sm=75,file=$< \
	    $(foreach sm,$(KERNEL_SM),--image3=kind=elf,sm=$(sm),file=$(KERNEL_BUILD)/kernel.$(sm).cubin)

# The image ends with a NUL: PTX is text.
$(BUILD)/kernel_image.c: $(KERNEL_IMAGE) FORCE
	@mkdir -p $(@D)
	@{ echo '#include <stddef.h>'; \
	   echo 'extern const unsigned char rail_kernel_image[];'; \
	   echo 'extern const size_t rail_kernel_image_bytes;'; \
	   $(if $(KERNEL_IMAGE),echo '__asm__(".section .rodata; .balign 64; .globl rail_kernel_image; .hidden rail_kernel_image;"'; \
	   echo '"rail_kernel_image: .incbin \"$(KERNEL_IMAGE)\"; .byte 0; .previous");'; \
	   echo "const size_t rail_kernel_image_bytes = $$(stat -c %s $(KERNEL_IMAGE));", \
	   echo 'const unsigned char rail_kernel_image[1] = {0};'; \
	   echo 'const size_t rail_kernel_image_bytes = 0;'); } >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
$(BUILD)/kernel_image.o: $(BUILD)/kernel_image.c $(KERNEL_IMAGE)
	$(call say,CC,"$(or $(KERNEL_IMAGE),no kernel for GPUs: neither $(CLANG) with NVPTX nor nvcc is here)")
	$(Q)$(CC) -std=c11 $(OPT) -fPIC -fvisibility=hidden -c $< -o $@

# nodelete: the service thread may outlive a dlclose().
$(LIB): $(OBJ) $(BUILD)/objects.list src/api/exports.map
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(OPT) $(SAN) -shared -pthread -o $@ $(OBJ) $(STATIC) -Wl,-soname,libnccl.so.2 \
	    -Wl,--version-script=src/api/exports.map -Wl,--exclude-libs,ALL $(if $(SAN),,-Wl,-z,defs) -Wl,-z,now \
	    -Wl,-z,nodelete -Wl,--gc-sections $(LDFLAGS)
	$(Q)ln -sf libnccl.so.2 $(BUILD)/lib/libnccl.so

$(filter-out %/kernel_perf %/ceiling_perf,$(PERF)): $(BUILD)/bin/%: $(BUILD)/perf/%.o $(PERFOBJ) $(BUILD)/src/foreign/cuda.o $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(OPT) $(SAN) -pthread -o $@ $(filter %.o,$^) -L$(BUILD)/lib -l:libnccl.so.2 -Wl,-rpath,'$$ORIGIN/../lib' \
	    -lm -ldl $(LDFLAGS)

# These reach inside the library.
$(BUILD)/bin/kernel_perf $(BUILD)/bin/ceiling_perf: $(BUILD)/bin/%: $(BUILD)/perf/%.o $(BUILD)/perf/types.o $(BUILD)/perf/values.o $(ARCHIVE) \
                                                   | $(BUILD)/libjansson.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(OPT) $(SAN) -pthread -o $@ $^ $(STATIC) -lm -ldl $(LDFLAGS)

# As any program would be built against the installed library.
$(EXAMPLES): $(BUILD)/bin/%: %.c examples/example.h include/nccl.h include/railccl.h $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(OPT) $(SAN) $(WARN) -pthread -Iinclude -o $@ $< -L$(BUILD)/lib -l:libnccl.so.2 \
	    -Wl,-rpath,'$$ORIGIN/../../lib' -lm $(LDFLAGS)

# What faults are measured with: against the library as any program, with the benchmarks' values.
$(METER): $(BUILD)/tests/rails/fault_meter.o $(BUILD)/tests/rails/delivery.o $(METER_PERF:%=$(BUILD)/perf/%.o) \
          $(BUILD)/src/foreign/cuda.o $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(OPT) $(SAN) -pthread -o $@ $(filter %.o,$^) -L$(BUILD)/lib -l:libnccl.so.2 -Wl,-rpath,'$$ORIGIN/../../lib' \
	    -lm -ldl $(LDFLAGS)

$(TOOL): $(TOOLOBJ) $(ARCHIVE)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(OPT) $(SAN) -pthread -o $@ $(TOOLOBJ) $(ARCHIVE) $(STATIC) -lm -ldl $(LDFLAGS)

# The parts of the benchmarks, for their tests.
$(BUILD)/libperf.a: $(PERFOBJ)
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(filter $(BUILD)/tests/perf/%,$(TESTS)): $(BUILD)/libperf.a

# The parts of the doctor, for their tests.
$(filter $(BUILD)/tests/tools/test_doctor_%,$(TESTS)): $(patsubst %,$(BUILD)/tools/%.o,doctor_judge doctor_judge_reads doctor_try_reads)

# A test is one program on cmocka: tests/LAYER/test_NAME.c, linked with the hidden archive and tests/support/.
$(TESTS): $(BUILD)/tests/%: $(BUILD)/tests/%.o $(SUPPORT) $(ARCHIVE)
	$(call say,LD,$@)
	$(Q)$(CC) $(OPT) $(SAN) -pthread -o $@ $(filter %.o,$^) $(filter %/libperf.a,$^) $(ARCHIVE) $(STATIC) \
	    $(addprefix -Wl$(comma)-rpath$(comma)'$$ORIGIN' ,$(filter %/libcuda.so.1,$^)) -lcmocka -lm -ldl $(LDFLAGS)

# The kernel built for the host: an image for the emulated libcuda, and a part of the kernel's own tests. It is one large
# function, which -O2 takes three times as long for.
KERNEL_HOST := $(BUILD)/tests/emulated_cuda/interpreter.so
KERNEL_HOST_OBJ := $(BUILD)/tests/emulated_cuda/kernels/interpreter.o
$(KERNEL_HOST_OBJ): FILE_CFLAGS += -O1
$(KERNEL_HOST): $(KERNEL_HOST_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) $(OPT) $(SAN) -shared -pthread -o $@ $< $(LDFLAGS)
$(filter %/test_interpreter %/test_kernel_express,$(TESTS)): $(KERNEL_HOST_OBJ)
$(BUILD)/tests/device/test_cuda_combine.o: FILE_CFLAGS += -O1
$(filter $(BUILD)/tests/emulated_cuda/%,$(TESTS)): | $(KERNEL_HOST)

# What check scripts run in network namespaces and in the virtual machine.
RIGGED   := $(BUILD)/tests/rails/tree_rank $(BUILD)/tests/rdma_vm/flows
# Links beside plain sockets: what tests/transport/bench_net.sh and perf/tcp_latency.sh run.
BENCH    := $(BUILD)/tests/transport/bench_net
$(RIGGED) $(BENCH): %: %.o $(ARCHIVE) | $(BUILD)/libjansson.a
	$(call say,LD,$@)
	$(Q)$(CC) $(OPT) $(SAN) -pthread -o $@ $< $(ARCHIVE) $(STATIC) -lm -ldl $(LDFLAGS)

# The emulated driver, and kernels for its own tests (tests/emulated_cuda/README.md).
EMULATED  := $(BUILD)/tests/emulated_cuda/libcuda.so.1
EMULATOR  := $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/emulated_cuda/test_%,$(wildcard tests/emulated_cuda/*.c)))
KERNELS   := $(patsubst %,$(BUILD)/tests/%.so,emulated_cuda/kernels/kernels device/cuda_test_kernel)
$(EMULATOR) $(KERNELS:.so=.o): FILE_CFLAGS += -fvisibility=default
$(EMULATED): $(EMULATOR) tests/emulated_cuda/exports.map
	$(call say,LD,$@)
	$(Q)$(CC) $(OPT) $(SAN) -shared -pthread -o $@ $(EMULATOR) -Wl,-soname,libcuda.so.1 \
	    -Wl,--version-script=tests/emulated_cuda/exports.map $(if $(SAN),,-Wl,-z,defs) -Wl,-z,nodelete -ldl $(LDFLAGS)
$(KERNELS): %.so: %.o
	$(call say,LD,$@)
	$(Q)$(CC) $(OPT) $(SAN) -shared -o $@ $< $(LDFLAGS)
$(filter $(BUILD)/tests/emulated_cuda/%,$(TESTS)): $(EMULATED) | $(KERNELS)
$(filter $(BUILD)/tests/device/test_cuda_%,$(TESTS)): | $(EMULATED) $(KERNELS)

# A second library for a test's own process (tests/core/twin.c): what it shows beside NCCL's names is the door.
TWIN := $(BUILD)/tests/core/twin.so
$(TWIN:.so=.o): FILE_CFLAGS += -fvisibility=default
$(TWIN): $(TWIN:.so=.o) $(ARCHIVE) | $(BUILD)/libjansson.a
	$(call say,LD,$@)
	$(Q)$(CC) $(OPT) $(SAN) -shared -pthread -o $@ $< -Wl,--whole-archive $(ARCHIVE) -Wl,--no-whole-archive $(STATIC) \
	    -Wl,-Bsymbolic -Wl,-z,nodelete -lm -ldl $(LDFLAGS)
$(BUILD)/tests/core/test_lent: | $(TWIN)

HELPERS := $(TWIN) $(RIGGED) $(EMULATED) $(KERNELS) $(KERNEL_HOST)
tests: $(TESTS) $(HELPERS)
# Those alone that T names, where it names no script.
tests-named: $(if $(T),$(if $(filter %.sh,$(T)),tests,$(T:%=$(BUILD)/tests/%) $(HELPERS)),tests)

# ---- showing and proving --------------------------------------------------------------------------------------------

# What `make check` runs beside all test programs and tests/*/check_*.sh.
HOUSE   := run include_rule headers ptx kernel clang install arm64 fuzz

demo: ## 4 processes as 2 hosts of 2 ranks: AllReduce from 8 B to 128 MiB, verified
	$(Q)scripts/deps.sh demo
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all
	$(Q)BUILD=$(BUILD) scripts/demo.sh

check: ## everything that proves the library, under 15 minutes on 2 cores
	$(Q)scripts/deps.sh check
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all tests
	$(Q)BUILD=$(BUILD) CC=$(CC) tests/run.sh --all $(HOUSE:%=house/check_%.sh)

check-long: ## the same with the big matrices
	$(Q)RAILCCL_TEST_LONG=1 TEST_LIMIT_S=3600 $(MAKE) --no-print-directory check

check-rails: all ## collectives over 4 hosts x 4 rails and other shapes, by interface counters; root, some minutes
	$(Q)scripts/deps.sh check
	$(Q)BUILD=$(BUILD) TEST_LIMIT_S=900 tests/run.sh rails/rails.sh rails/routes.sh

check-faults: all $(METER) ## collectives while rails die and come back, every byte checked: root, some minutes; RAIL_FAULTS=200 schedules
	$(Q)scripts/deps.sh check
	$(Q)BUILD=$(BUILD) TEST_LIMIT_S=$(or $(TEST_LIMIT_S),1500) tests/run.sh rails/faults.sh

check-rdma: all $(BUILD)/tests/rdma_vm/flows $(BUILD)/tests/conformance/test_conformance ## the library on Linux's Soft-RoCE, 4 hosts x 4 rails in a virtual machine: no root; fetches 95 MB once, three minutes
	$(Q)BUILD=$(BUILD) TEST_LIMIT_S=$(or $(TEST_LIMIT_S),600) tests/run.sh rdma_vm/check_rdma.sh

check-predict: all ## what `railccl plan` predicts against emulated rails, 16 cases and dead parts: root, some minutes
	$(Q)scripts/deps.sh check
	$(Q)BUILD=$(BUILD) tests/rails/predict.sh

# Runs every test program and check script (or those named in T="plan/test_x ..."); last line counts their cases.
check-run: tests $(if $(T),,all)
	$(Q)BUILD=$(BUILD) tests/run.sh $(T)

# ASan watches UBSan's ground too; `make ubsan` is the build without ASan's shadow, nearer to the real timing. TSan of
# gcc 12 does not find its shadow when the kernel randomises more than 28 bits of addresses: hence setarch -R. Ranks as
# processes are forked from a process with a service thread, which TSan tolerates only with die_after_fork=0.
asan: ## the tests under AddressSanitizer, LeakSanitizer and UBSan
	$(Q)$(MAKE) --no-print-directory sanitized KIND=asan SAN="-fsanitize=address,undefined $(SANFLAGS)"
ubsan: ## the tests under UBSan
	$(Q)$(MAKE) --no-print-directory sanitized KIND=ubsan SAN="-fsanitize=undefined $(SANFLAGS)"
tsan: ## the tests that have threads under ThreadSanitizer
	$(Q)$(MAKE) --no-print-directory sanitized KIND=tsan SAN="-fsanitize=thread -fno-omit-frame-pointer" \
	    RUNNER="$(shell setarch -R true 2>/dev/null && echo setarch -R)" T="$(or $(T),$(THREADED))"
# Plans, arithmetic and the logic of repair know no threads, and TSan makes them ten times slower for nothing.
# Where ranks are processes, and processes fork under threads, it sees nothing and refuses.
FORKING  := $(addprefix core/test_,abort p2p_trouble one_core announce bad_calls citizen death fork limits lost_rank \
                mismatch scale watch_lines windows go_on) \
            $(addprefix bootstrap/test_,launch launch_mpi hosts many)
THREADED = $(filter-out %_combine,$(filter device/test_cuda_%,$(TESTSRC:tests/%.c=%))) \
           $(filter-out plan/% device/% abi/% perf/% tools/% transport/test_repair% transport/test_silence $(FORKING),$(TESTSRC:tests/%.c=%))
SANFLAGS := -fno-sanitize-recover=all -fno-omit-frame-pointer
sanitized:
	$(Q)scripts/deps.sh check
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) BUILD=build-$(KIND) SAN="$(SAN)" all tests-named
	$(Q)BUILD=build-$(KIND) TEST_LIMIT_S=$${TEST_LIMIT_S:-900} ASAN_OPTIONS=detect_stack_use_after_return=1:$$ASAN_OPTIONS \
	    UBSAN_OPTIONS=print_stacktrace=1:$$UBSAN_OPTIONS \
	    TSAN_OPTIONS=die_after_fork=0:second_deadlock_stack=1:$$TSAN_OPTIONS TEST_RUNNER="$(RUNNER)" tests/run.sh $(T)

# Parsers against any bytes. Of the library only the layers that parsers live in are built for it.
FUZZ_LAYERS := base foreign topo
FUZZ     := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_TOOLS := tools/elf_file.c tools/library.c
FUZZOBJ  := $(patsubst %.c,$(BUILD)/%.o,$(filter $(FUZZ_LAYERS:%=src/%/%),$(SRC)) $(FUZZ_TOOLS))
ELFSEEDS := $(BUILD)/seeds/elf/gnu $(BUILD)/seeds/elf/sysv
fuzz: ## each fuzz target for FUZZ_SECONDS=20 (needs clang)
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) BUILD=build-fuzz CC=$(FUZZ_CC) OPT="-O1 -g1" \
	    SAN="-fsanitize=address,undefined,fuzzer-no-link $(SANFLAGS)" $(FUZZ:%=build-fuzz/tests/fuzz/%)
	$(Q)BUILD=build-fuzz bash tests/fuzz/run.sh $(FUZZ)
FUZZ_CC  ?= clang
$(BUILD)/tests/fuzz/fuzz_elf: | $(ELFSEEDS)
$(ELFSEEDS): $(BUILD)/seeds/elf/%: tests/fuzz/elf_seed.c
	@mkdir -p $(@D)
	$(Q)$(CC) -O1 -nostdlib -shared -s -Wl,-soname,libnccl.so.2 -Wl,-z,noseparate-code -Wl,--hash-style=$* -o $@ $<
$(FUZZ:%=$(BUILD)/tests/fuzz/%): $(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(FUZZOBJ) | $(BUILD)/libjansson.a
	$(call say,LD,$@)
	$(Q)$(CC) $(OPT) $(SAN) -fsanitize=fuzzer -pthread -o $@ $^ $(STATIC) -lm -ldl

perf: all ## measure AllReduce on this machine
	$(Q)BUILD=$(BUILD) scripts/perf.sh

# Seconds of fuzzing: S=60. Needs clang; crashes are left in the build folder.
fuzz-fabric: ## fuzz the readers of fabric files and topology.conf for S seconds (60)
	$(Q)mkdir -p $(BUILD)/fuzz
	$(Q)clang -std=c11 -D_GNU_SOURCE -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -pthread -Isrc -Iinclude \
	    -DRAILCCL_VERSION='"$(VERSION)"' -o $(BUILD)/fuzz/fabric tests/fuzz/fuzz_fabric.c \
	    $(wildcard src/topo/fabric*.c) src/topo/hostlist.c src/topo/order.c src/topo/rails.c $(wildcard src/base/*.c) $(SODIUM)
	$(Q)cd $(BUILD)/fuzz && mkdir -p corpus && ./fabric -max_total_time=$(or $(S),60) -max_len=4096 -print_final_stats=1 corpus

# Reaches inside the library, so it is linked with the archive and is no part of `make perf`.
bench-combine: $(BUILD)/tests/device/bench_combine ## arithmetic on host memory: GB/s per type, shape and path
	$(Q)$<
$(BUILD)/tests/device/bench_combine: $(BUILD)/tests/device/bench_combine.o $(ARCHIVE)
	$(call say,LD,$@)
	$(Q)$(CC) $(OPT) $(SAN) -pthread -o $@ $^ $(STATIC) -ldl

# ---- installing -----------------------------------------------------------------------------------------------------

HEADERS := nccl.h nccl_device.h railccl.h

install: all ## into $(DESTDIR)$(PREFIX): library, headers, programs, pkg-config files
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(LIB) $(DESTDIR)$(LIBDIR)/libnccl.so.2
	ln -sf libnccl.so.2 $(DESTDIR)$(LIBDIR)/libnccl.so
	install -m 644 $(HEADERS:%=include/%) $(DESTDIR)$(PREFIX)/include
	for p in $(PERF) $(TOOL); do install -m 755 $$p $(DESTDIR)$(PREFIX)/bin || exit 1; done
	for p in nccl railccl; do \
	    sed -e 's|@prefix@|$(PREFIX)|' -e 's|@libdir@|$(LIBDIR)|' -e 's|@version@|$(VERSION)|' scripts/$$p.pc.in \
	        >$(DESTDIR)$(LIBDIR)/pkgconfig/$$p.pc || exit 1; \
	done

uninstall: ## what install put there
	rm -f $(DESTDIR)$(LIBDIR)/libnccl.so.2 $(DESTDIR)$(LIBDIR)/libnccl.so $(HEADERS:%=$(DESTDIR)$(PREFIX)/include/%) \
	    $(patsubst $(BUILD)/%,$(DESTDIR)$(PREFIX)/%,$(PERF) $(TOOL)) \
	    $(DESTDIR)$(LIBDIR)/pkgconfig/nccl.pc $(DESTDIR)$(LIBDIR)/pkgconfig/railccl.pc

clean: ## every build folder
	rm -rf $(BUILD) build-asan build-ubsan build-tsan build-clang build-arm64 build-fuzz build-vm

help: ## this list
	@sed -nE 's/^([a-z-]+):.* ## (.*)/  make \1\t\2/p' Makefile | sed 's/$$(DESTDIR)$$(PREFIX)/PREFIX/' | expand -t 20
	@echo '  Variables: BUILD=build CC=gcc PREFIX=/usr/local LIBDIR= DESTDIR= OPT="-O2 -g" V=1 T="layer/test_name ..."'

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.PHONY: all tests tests-named demo check check-long check-rails check-faults check-rdma check-run asan ubsan tsan sanitized perf bench-combine fuzz-fabric install uninstall clean help FORCE
.SECONDARY:
.DELETE_ON_ERROR:
