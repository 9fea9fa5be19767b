/* module.c - modules: shared objects with kernels that were built for the host (emulated.h), loaded anew for each
 * context.
 *
 * A function is loaded at its first use unless CUDA_MODULE_LOADING=EAGER, as in the real driver: that synchronises, so
 * a client loads its functions (cuFuncLoad, cuFuncGetAttribute) before a kernel of its own can be waiting for
 * anything. */
#include "emulated_cuda/state.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __x86_64__
enum { HERE = EM_X86_64 };
#else
enum { HERE = EM_AARCH64 };
#endif

/* Bytes of an ELF image, which is given without its length: up to the end of whatever lies last in it. */
static size_t image_bytes(const Elf64_Ehdr *header)
{
    const char *image = (const char *)header;
    const Elf64_Phdr *segments = (const Elf64_Phdr *)(image + header->e_phoff);
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(image + header->e_shoff);
    size_t end = header->e_shoff + (size_t)header->e_shnum * sizeof *sections;
    for (int i = 0; i < header->e_phnum; i++)
        if (segments[i].p_offset + segments[i].p_filesz > end)
            end = segments[i].p_offset + segments[i].p_filesz;
    for (int i = 0; header->e_shoff != 0 && i < header->e_shnum; i++)
        if (sections[i].sh_type != SHT_NOBITS && sections[i].sh_offset + sections[i].sh_size > end)
            end = sections[i].sh_offset + sections[i].sh_size;
    return end;
}

/* Machine code of a GPU, a fat binary or text (PTX) is for another GPU than this; anything else is no image. */
static CUresult check_image(const void *image)
{
    static const unsigned char fat[4] = {0x50, 0xed, 0x55, 0xba}, wrapped[4] = {0xb1, 0x43, 0x62, 0x46};
    const Elf64_Ehdr *header = image;
    if (memcmp(image, ELFMAG, SELFMAG) == 0)
        return header->e_ident[EI_CLASS] == ELFCLASS64 && header->e_machine == HERE ? CUDA_SUCCESS
                                                                                    : CUDA_ERROR_NO_BINARY_FOR_GPU;
    if (memcmp(image, fat, 4) == 0 || memcmp(image, wrapped, 4) == 0)
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    const char *text = image;
    while (*text == '\n' || *text == ' ')
        text++;
    return strncmp(text, "//", 2) == 0 || strncmp(text, ".version", 8) == 0 ? CUDA_ERROR_NO_BINARY_FOR_GPU
                                                                           : CUDA_ERROR_INVALID_IMAGE;
}

/* The loader takes two files of one name for the same one, so each gets another name for its descriptor: the bits of a
 * number that counts up, written in superfluous parts of the path. */
static void name_of(char path[128], int fd)
{
    static unsigned serial;
    char *at = path + sprintf(path, "/proc/self");
    for (unsigned bits = ++serial; bits != 0; bits >>= 1)
        at += sprintf(at, "%s", bits & 1 ? "/." : "/");
    sprintf(at, "/fd/%d", fd);
}

/* Through a file in memory of its own, so that every module has its own variables. Under the lock. */
static void *open_image(const void *image, size_t bytes)
{
    char path[128];
    void *library = NULL;
    int fd = memfd_create("emulated-module", MFD_CLOEXEC);
    if (fd < 0)
        return NULL;
    size_t written = 0;
    while (written < bytes) {
        ssize_t some = write(fd, (const char *)image + written, bytes - written);
        if (some <= 0)
            break;
        written += (size_t)some;
    }
    name_of(path, fd);
    if (written == bytes)
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        say("an image of %zu bytes cannot be loaded: %s", bytes, written == bytes ? dlerror() : "no memory file");
    close(fd);
    return library;
}

static CUresult load(CUmodule *module, const void *image, const char *call, struct context *c)
{
    CUresult result = check_image(image);
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&emulator);
    result = settle(c, call);
    if (result != CUDA_SUCCESS)
        return leave(result);
    struct module *m = calloc(1, sizeof *m);
    void *library = m == NULL ? NULL : open_image(image, image_bytes(image));
    if (library == NULL) {
        free(m);
        return leave(CUDA_ERROR_INVALID_IMAGE);
    }
    *m = (struct module){.kind = KIND_MODULE, .context = c, .library = library, .next = c->modules};
    c->modules = m;
    *module = m;
    return leave(CUDA_SUCCESS);
}

/* The caller takes it out of its context's list. */
void module_free(struct module *module)
{
    for (struct function *f = module->functions, *next; f != NULL; f = next) {
        next = f->next;
        f->kind = KIND_GONE;
        free(f);
    }
    module->kind = KIND_GONE;
    dlclose(module->library);
    free(module);
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    struct context *c;
    ENTER_IN(c);
    return module == NULL || image == NULL ? CUDA_ERROR_INVALID_VALUE : load(module, image, __func__, c);
}

/* Options speak of compiling PTX, which there is none of. */
CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned n, int *options, void **values)
{
    struct context *c;
    ENTER_IN(c);
    (void)n, (void)options, (void)values;
    return module == NULL || image == NULL ? CUDA_ERROR_INVALID_VALUE : load(module, image, __func__, c);
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    struct context *c;
    ENTER_IN(c);
    return module == NULL || image == NULL ? CUDA_ERROR_INVALID_VALUE : load(module, image, __func__, c);
}

CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    struct context *c;
    struct stat status;
    ENTER_IN(c);
    if (module == NULL || path == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) {
        if (fd >= 0)
            close(fd);
        return CUDA_ERROR_FILE_NOT_FOUND;
    }
    /* One byte more, so that text ends. */
    size_t bytes = (size_t)status.st_size;
    char *image = calloc(1, bytes + sizeof(Elf64_Ehdr));
    CUresult result = image != NULL && read(fd, image, bytes) == (ssize_t)bytes ? load(module, image, __func__, c)
                                                                                : CUDA_ERROR_OUT_OF_MEMORY;
    close(fd);
    free(image);
    return result;
}

CUresult cuModuleUnload(CUmodule module)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (module == NULL || module->kind != KIND_MODULE)
        return leave(CUDA_ERROR_INVALID_HANDLE);
    struct context *c = module->context;
    CUresult result = settle(c, __func__);
    if (result == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        return leave(result);
    struct module **at = &c->modules;
    while (*at != module)
        at = &(*at)->next;
    *at = module->next;
    module_free(module);
    return leave(result);
}

CUresult cuModuleGetLoadingMode(int *mode)
{
    ENTER();
    if (mode == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = settings.lazy ? 2 : 1;
    return CUDA_SUCCESS;
}

/* ---- functions */

static struct function *function_new(struct module *m, const char *name)
{
    char symbol[160];
    snprintf(symbol, sizeof symbol, "%s_argument_bytes", name);
    void *run = dlsym(m->library, name);
    const uint32_t *bytes = dlsym(m->library, symbol);
    struct function *f = run == NULL || bytes == NULL ? NULL : calloc(1, sizeof *f);
    if (f == NULL)
        return NULL;
    *f = (struct function){.kind = KIND_FUNCTION, .module = m, .argument_bytes = *bytes, .loaded = !settings.lazy,
                           .next = m->functions};
    memcpy(&f->run, &run, sizeof run);
    snprintf(f->name, sizeof f->name, "%s", name);
    f->attribute[CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK] = MAX_BLOCK_THREADS;
    f->attribute[CU_FUNC_ATTRIBUTE_NUM_REGS] = 64;
    f->attribute[CU_FUNC_ATTRIBUTE_BINARY_VERSION] = 10 * settings.major + settings.minor;
    f->attribute[CU_FUNC_ATTRIBUTE_PTX_VERSION] = 10 * settings.major + settings.minor;
    f->attribute[CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES] = 49152;
    f->attribute[CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT] = -1;
    m->functions = f;
    return f;
}

CUresult function_load(struct function *function, const char *call)
{
    if (function->loaded)
        return CUDA_SUCCESS;
    char what[96];
    snprintf(what, sizeof what, "%s (which loads the function)", call);
    CUresult result = settle(function->module->context, what);
    function->loaded = result == CUDA_SUCCESS;
    return result;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    struct context *c;
    ENTER_IN(c);
    if (function == NULL || name == NULL || strlen(name) >= sizeof(*function)->name)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    if (module == NULL || module->kind != KIND_MODULE)
        return leave(CUDA_ERROR_INVALID_HANDLE);
    struct function *f = module->functions;
    while (f != NULL && strcmp(f->name, name) != 0)
        f = f->next;
    if (f == NULL)
        f = function_new(module, name);
    if (f == NULL)
        return leave(CUDA_ERROR_NOT_FOUND);
    *function = f;
    return leave(CUDA_SUCCESS);
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *pointer, size_t *bytes, CUmodule module, const char *name)
{
    struct context *c;
    ENTER_IN(c);
    if (name == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    if (module == NULL || module->kind != KIND_MODULE)
        return leave(CUDA_ERROR_INVALID_HANDLE);
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    void *at = dlsym(module->library, name), *entry = NULL;
    if (at == NULL || dladdr1(at, &info, &entry, RTLD_DL_SYMENT) == 0 || entry == NULL)
        return leave(CUDA_ERROR_NOT_FOUND);
    symbol = entry;
    if (pointer != NULL)
        *pointer = (uintptr_t)at;
    if (bytes != NULL)
        *bytes = symbol->st_size;
    return leave(CUDA_SUCCESS);
}

CUresult cuFuncLoad(CUfunction function)
{
    struct context *c;
    ENTER_IN(c);
    if (function == NULL || function->kind != KIND_FUNCTION)
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&emulator);
    return leave(function_load(function, __func__));
}

CUresult cuFuncIsLoaded(int *state, CUfunction function)
{
    struct context *c;
    ENTER_IN(c);
    if (state == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (function == NULL || function->kind != KIND_FUNCTION)
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&emulator);
    *state = function->loaded;
    return leave(CUDA_SUCCESS);
}

CUresult cuFuncGetModule(CUmodule *module, CUfunction function)
{
    ENTER();
    if (module == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (function == NULL || function->kind != KIND_FUNCTION)
        return CUDA_ERROR_INVALID_HANDLE;
    *module = function->module;
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
    struct context *c;
    ENTER_IN(c);
    if (value == NULL || attribute < 0 || attribute >= CU_FUNC_ATTRIBUTES)
        return CUDA_ERROR_INVALID_VALUE;
    if (function == NULL || function->kind != KIND_FUNCTION)
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&emulator);
    CUresult result = function_load(function, __func__);
    if (result == CUDA_SUCCESS)
        *value = function->attribute[attribute];
    return leave(result);
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value)
{
    struct context *c;
    ENTER_IN(c);
    bool shared = attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    if ((!shared && attribute != CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) ||
        (shared && (value < 0 || value > 232448)))
        return CUDA_ERROR_INVALID_VALUE;
    if (function == NULL || function->kind != KIND_FUNCTION)
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&emulator);
    CUresult result = function_load(function, __func__);
    if (result == CUDA_SUCCESS)
        function->attribute[attribute] = value;
    return leave(result);
}

/* By threads alone: 2048 per multiprocessor, 32 blocks; and what shared memory leaves. */
static CUresult occupancy(int *blocks, CUfunction function, int threads, size_t shared_bytes)
{
    if (blocks == NULL || threads <= 0 || threads > MAX_BLOCK_THREADS)
        return CUDA_ERROR_INVALID_VALUE;
    if (function == NULL || function->kind != KIND_FUNCTION)
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&emulator);
    CUresult result = function_load(function, "cuOccupancyMaxActiveBlocksPerMultiprocessor");
    int fit = 2048 / ((threads + 31) / 32 * 32);
    if (fit > 32)
        fit = 32;
    /* 1 KiB of each block is the system's. */
    if (233472 / (shared_bytes + 1024) < (size_t)fit)
        fit = (int)(233472 / (shared_bytes + 1024));
    if (result == CUDA_SUCCESS)
        *blocks = fit;
    return leave(result);
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads, size_t shared_bytes)
{
    struct context *c;
    ENTER_IN(c);
    return occupancy(blocks, function, threads, shared_bytes);
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, CUfunction function, int threads,
                                                              size_t shared_bytes, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    return flags > 1 ? CUDA_ERROR_INVALID_VALUE : occupancy(blocks, function, threads, shared_bytes);
}
