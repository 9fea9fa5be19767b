/* env_lines.c - what makes a program take this installation's libnccl.so.2 instead of NVIDIA's, by how it looks for it:
 *
 *   linked, with a DT_RPATH (torch's wheel)   LD_PRELOAD alone: DT_RPATH comes before LD_LIBRARY_PATH, and what is
 *                                             loaded first under the soname is what everybody finds
 *   linked, without one; dlopen by soname     LD_PRELOAD, or LD_LIBRARY_PATH
 *   opened by path                            a variable of that program's: VLLM_NCCL_SO_PATH
 *   linked in                                 nothing */
#include <libgen.h>
#include <string.h>

#include "env.h"
#include "library.h"
#include "nccl.h"

enum { PRELOAD, VLLM, FOLDER, N_VARIABLES };
static const struct variable {
    const char *name;
    bool in_front; /* of what is there, with a colon */
    const char *why; /* as lines of remarks */
} variables[N_VARIABLES] = {
    [PRELOAD] = {"LD_PRELOAD", true,
                 "PyTorch (DDP, FSDP, DeepSpeed, Megatron): its wheel's RPATH comes before LD_LIBRARY_PATH. Serves\n"
                 "cupy, nccl-tests and everything else that is linked with NCCL or opens it by name, too."},
    [VLLM] = {"VLLM_NCCL_SO_PATH", false, "vLLM opens its NCCL by this path."},
    [FOLDER] = {"LD_LIBRARY_PATH", true,
                "Instead of LD_PRELOAD, for programs without an RPATH of their own: nccl-tests, PyTorch of NVIDIA's\n"
                "containers or built from source with the system's NCCL."},
};

static const struct client {
    const char *name, *serves;
    unsigned needs; /* bits of variables */
} clients[] = {
    {"torch", "PyTorch: DDP, FSDP, DeepSpeed, Megatron; also cupy", 1u << PRELOAD},
    {"vllm", "vLLM", 1u << PRELOAD | 1u << VLLM},
    {"nccl-tests", "programs without an RPATH of their own: nccl-tests, builds with the system's NCCL", 1u << FOLDER},
};
enum { N_CLIENTS = sizeof clients / sizeof *clients };

void env_clients(FILE *out)
{
    for (int i = 0; i < N_CLIENTS; i++) fprintf(out, "%s%s", i ? ", " : "", clients[i].name);
}

/* In single quotes, for any shell. */
static void quoted(const char *text)
{
    putchar('\'');
    for (; *text; text++) *text == '\'' ? fputs("'\\''", stdout) : putchar(*text);
    putchar('\'');
}

static void print_variable(const struct variable *v, const char *value, bool active)
{
    for (const char *line = v->why; *line;) {
        int n = (int)strcspn(line, "\n");
        printf("# %.*s\n", n, line);
        line += n + (line[n] == '\n');
    }
    printf("%sexport %s=", active ? "" : "# ", v->name);
    quoted(value);
    if (v->in_front) printf("\"${%s:+:$%s}\"", v->name, v->name);
    putchar('\n');
}

static void json_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') printf("\\%c", *text);
        else if ((unsigned char)*text < ' ') printf("\\u%04x", *text);
        else putchar(*text);
    }
    putchar('"');
}

static void print_json(const struct client *only, const char *const value[N_VARIABLES])
{
    printf("{\"library\": ");
    json_text(value[PRELOAD]);
    printf(", \"version\": \"%s\", \"nccl\": \"%d.%d.%d\", \"clients\": [", RAILCCL_VERSION, NCCL_MAJOR, NCCL_MINOR,
           NCCL_PATCH);
    for (const struct client *c = clients, *first = only ? only : c; c < clients + N_CLIENTS; c++) {
        if (only && c != only) continue;
        printf("%s\n  {\"client\": \"%s\", \"serves\": \"%s\", \"variables\": [", c == first ? "" : ",", c->name,
               c->serves);
        bool more = false;
        for (int i = 0; i < N_VARIABLES; i++) {
            if (!(c->needs >> i & 1)) continue;
            printf("%s\n    {\"name\": \"%s\", \"in_front\": %s, \"value\": ", more ? "," : "", variables[i].name,
                   variables[i].in_front ? "true" : "false");
            json_text(value[i]);
            putchar('}');
            more = true;
        }
        printf("]}");
    }
    printf("]}\n");
}

static const struct client *find(const char *name)
{
    for (int i = 0; i < N_CLIENTS; i++)
        if (strcmp(clients[i].name, name) == 0) return &clients[i];
    fprintf(stderr, "railccl env: --client %s: not known; there are ", name);
    env_clients(stderr);
    fputs(", and torch's line serves most others\n", stderr);
    return NULL;
}

int env_lines(const char *name, bool json)
{
    char library[PATH_MAX], folder[PATH_MAX];
    const struct client *client = name ? find(name) : NULL;
    if (name && !client) return 2;
    if (!library_own(library))
        return fprintf(stderr, "railccl env: %s: no " LIBRARY_NAME " of railccl's: build it (`make`), or name it in "
                       "RAILCCL_LIBRARY\n", library), 2;
    const char *letter = library_unpreloadable(library);
    if (letter)
        return fprintf(stderr, "railccl env: %s: neither LD_PRELOAD nor LD_LIBRARY_PATH can name it: there is %s in "
                       "its path; move the installation, or use `railccl install --wheel`\n", library, letter), 2;
    strcpy(folder, library);
    const char *const value[N_VARIABLES] = {[PRELOAD] = library, [VLLM] = library, [FOLDER] = dirname(folder)};
    if (json) return print_json(client, value), ferror(stdout) ? 1 : 0;
    printf("# railccl %s (NCCL %d.%d.%d interface)\n", RAILCCL_VERSION, NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH);
    for (int i = 0; i < N_VARIABLES; i++) {
        bool active = client ? client->needs >> i & 1 : i != FOLDER; /* the folder is the other choice */
        if (active || !client) print_variable(&variables[i], value[i], active);
    }
    if (!client)
        puts("# Without any variable, in one Python environment: railccl install --wheel SITE_PACKAGES\n"
             "# Whether it is in use: NCCL_DEBUG=VERSION prints \"railccl ... from FILE\" at the first communicator.");
    return ferror(stdout) ? 1 : 0;
}
