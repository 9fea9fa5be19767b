/* params.c - reads the variables of params.def and answers for them.
 *
 * One reading is one immutable block of values behind one atomic pointer: no lock, so nothing can be held across fork()
 * and the log may ask for its own variables while the values are being read. Two threads that come first together both
 * read; one block wins. Replaced blocks stay allocated, because callers keep pointers to texts. */
#include "base/params.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/log.h"
#include "base/memory.h"

enum kind { KIND_INT, KIND_BOOL, KIND_STR, KIND_CHOICE };

struct entry {
    const char *name;
    enum kind kind;
    enum rail_param_effect effect;
    int64_t number, low, high;  /* INT and BOOL: default and range */
    const char *word, *choices; /* STR and CHOICE: default; CHOICE: "a|b|c" */
    const char *text;
};

/* clang-format off */
#define RAIL_PARAM_INT(id, name, default_value, low, high, effect, text) \
    {name, KIND_INT, effect, default_value, low, high, NULL, NULL, text},
#define RAIL_PARAM_BOOL(id, name, default_value, effect, text) \
    {name, KIND_BOOL, effect, default_value, 0, 1, NULL, NULL, text},
#define RAIL_PARAM_STR(id, name, default_value, effect, text) \
    {name, KIND_STR, effect, 0, 0, 0, default_value, NULL, text},
#define RAIL_PARAM_CHOICE(id, name, default_value, choices, effect, text) \
    {name, KIND_CHOICE, effect, 0, 0, 0, default_value, choices, text},
/* clang-format on */
static const struct entry table[RAIL_PARAM_COUNT] = {
#include "base/params.def"
};

struct value {
    int64_t number;
    const char *word;
    const char *from; /* "the environment" or a file's path; NULL: the default */
    char *rejected;   /* the text that did not parse */
};

struct values {
    struct value of[RAIL_PARAM_COUNT];
    struct rail_conf *user, *system; /* own the texts that came from files */
    atomic_bool set_reported, ignored_reported;
    struct values *replaced; /* the reading before this one: kept, its texts may be in use */
};

static struct values *_Atomic current;
static const char *_Atomic system_path; /* NULL: /etc/nccl.conf */

/* ---- sources ---- */

struct sources {
    struct rail_conf *user, *system;
};

static void sources_open(struct sources *s)
{
    const char *path = getenv("NCCL_CONF_FILE"), *home = getenv("HOME"), *etc = atomic_load(&system_path);
    char in_home[4096];
    if ((!path || !*path) && home && *home &&
        snprintf(in_home, sizeof in_home, "%s/.nccl.conf", home) < (int)sizeof in_home)
        path = in_home;
    s->user = path && *path ? rail_conf_read(path) : NULL;
    s->system = rail_conf_read(etc ? etc : "/etc/nccl.conf");
}

static const char *sources_find(const struct sources *s, const char *name, const char **from)
{
    const char *text = getenv(name);
    *from = "the environment";
    if (!text && (text = rail_conf_find(s->user, name))) *from = rail_conf_path(s->user);
    if (!text && (text = rail_conf_find(s->system, name))) *from = rail_conf_path(s->system);
    return text && *text ? text : NULL;
}

char *rail_param_read_now(enum rail_param id)
{
    struct sources s;
    sources_open(&s);
    const char *from, *text = sources_find(&s, table[id].name, &from);
    char *copy = text ? strdup(text) : NULL;
    rail_conf_free(s.user);
    rail_conf_free(s.system);
    return copy;
}

/* ---- parsing ---- */

static bool only_blanks(const char *p)
{
    return p[strspn(p, " \t\r\n")] == 0;
}

/* Decimal or 0x, with K, M, G (powers of 1024; KB and KiB are the same). No octal: 010 is ten. */
static bool parse_number(const char *text, int64_t *out)
{
    text += strspn(text, " \t");
    const char *digits = text + (*text == '-' || *text == '+');
    int base = digits[0] == '0' && (digits[1] | 32) == 'x' ? 16 : 10;
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, base);
    if (end == text || errno) return false;
    static const struct { char letter; int shift; } suffixes[] = {{'k', 10}, {'m', 20}, {'g', 30}};
    for (size_t i = 0; i < 3; i++) {
        if ((*end | 32) != suffixes[i].letter) continue;
        if (__builtin_mul_overflow(n, INT64_C(1) << suffixes[i].shift, &n)) return false;
        end++;
        if (*end == 'i') end++;
        if ((*end | 32) == 'b') end++;
        break;
    }
    *out = n;
    return only_blanks(end);
}

static bool same_word(const char *text, const char *word, size_t word_bytes)
{
    text += strspn(text, " \t");
    return strncasecmp(text, word, word_bytes) == 0 && only_blanks(text + word_bytes);
}

/* As in NCCL, every number but 0 is yes. */
static bool parse_bool(const char *text, int64_t *out)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
    for (size_t i = 0; i < 6; i++)
        if (same_word(text, words[i], strlen(words[i]))) return *out = i & 1, true;
    int64_t n;
    if (!parse_number(text, &n) || n < 0) return false;
    return *out = n != 0, true;
}

/* The table's spelling of the choice, as a copy; NULL when it is none of them. */
static char *parse_choice(const char *text, const char *choices)
{
    for (const char *p = choices; *p; p += *p == '|') {
        size_t bytes = strcspn(p, "|");
        if (same_word(text, p, bytes)) return strndup(p, bytes);
        p += bytes;
    }
    return NULL;
}

/* Changes the value only when the text is good. */
static bool parse(const struct entry *e, const char *text, struct value *v)
{
    int64_t n = 0;
    char *word = NULL;
    switch (e->kind) {
    case KIND_INT:
        if (!parse_number(text, &n) || n < e->low || n > e->high) return false;
        return v->number = n, true;
    case KIND_BOOL:
        if (!parse_bool(text, &n)) return false;
        return v->number = n, true;
    case KIND_STR: word = strdup(text); break;
    case KIND_CHOICE: word = parse_choice(text, e->choices); break;
    }
    if (word) v->word = word;
    return word != NULL;
}

/* ---- reading ---- */

static struct values *read_all(void)
{
    struct values *all = calloc(1, sizeof *all);
    if (!all) { /* a page at start: nothing sensible can go on */
        static const char text[] = "railccl: out of memory while reading the environment\n";
        if (write(STDERR_FILENO, text, sizeof text - 1) < 0) abort();
        abort();
    }
    struct sources s;
    sources_open(&s);
    for (int i = 0; i < RAIL_PARAM_COUNT; i++) {
        struct value *v = &all->of[i];
        v->number = table[i].number;
        v->word = table[i].word;
        const char *from, *text = sources_find(&s, table[i].name, &from);
        if (!text) continue;
        if (parse(&table[i], text, v))
            v->from = from;
        else
            v->rejected = strdup(text);
    }
    all->user = s.user;
    all->system = s.system;
    return all;
}

static void allowed(const struct entry *e, char *out, size_t bytes)
{
    switch (e->kind) {
    case KIND_INT:
        snprintf(out, bytes, "a number from %" PRId64 " to %" PRId64 " (0x, K, M, G are understood)", e->low, e->high);
        break;
    case KIND_BOOL: snprintf(out, bytes, "0 or 1"); break;
    case KIND_STR: snprintf(out, bytes, "any text"); break;
    case KIND_CHOICE: snprintf(out, bytes, "one of %s", e->choices); break;
    }
}

static const char *show(const struct entry *e, const struct value *v, char *buffer, size_t bytes)
{
    if (e->kind == KIND_INT || e->kind == KIND_BOOL)
        snprintf(buffer, bytes, "%" PRId64, v->number);
    else if (!v->word)
        snprintf(buffer, bytes, "(unset)");
    else
        snprintf(buffer, bytes, "%s", e == &table[RAIL_PARAM_SECRET] ? "(not shown)" : v->word);
    return buffer;
}

static void report_rejected(const struct values *all)
{
    for (int i = 0; i < RAIL_PARAM_COUNT; i++) {
        if (!all->of[i].rejected) continue;
        char may[200], used[200];
        allowed(&table[i], may, sizeof may);
        RAIL_WARN("%s=%s: not understood; allowed is %s; using %s", table[i].name, all->of[i].rejected, may,
                  show(&table[i], &all->of[i], used, sizeof used));
    }
}

static void values_free(struct values *all)
{
    for (int i = 0; i < RAIL_PARAM_COUNT; i++) {
        if (all->of[i].word != table[i].word) free((void *)(uintptr_t)all->of[i].word);
        free(all->of[i].rejected);
    }
    rail_conf_free(all->user);
    rail_conf_free(all->system);
    free(all);
}

static struct values *values_now(void)
{
    struct values *all = atomic_load_explicit(&current, memory_order_acquire);
    if (__builtin_expect(all != NULL, 1)) return all;
    int saved = errno;
    struct values *mine = read_all();
    if (atomic_compare_exchange_strong(&current, &all, mine)) {
        all = mine;
        report_rejected(all);
    } else {
        values_free(mine);
    }
    errno = saved;
    return all;
}

void rail_params_reload(void)
{
    int saved = errno;
    struct values *mine = read_all();
    mine->replaced = atomic_load(&current);
    while (!atomic_compare_exchange_weak(&current, &mine->replaced, mine)) {}
    report_rejected(mine);
    errno = saved;
}

void rail_params_system_file(const char *path)
{
    atomic_store(&system_path, path);
}

/* ---- answers ---- */

int64_t rail_param_int(enum rail_param id)
{
    return values_now()->of[id].number;
}

bool rail_param_bool(enum rail_param id)
{
    return values_now()->of[id].number != 0;
}

const char *rail_param_str(enum rail_param id)
{
    return values_now()->of[id].word;
}

bool rail_param_is_set(enum rail_param id)
{
    return values_now()->of[id].from != NULL;
}

const char *rail_param_name(enum rail_param id)
{
    return table[id].name;
}

bool rail_param_is_number(enum rail_param id)
{
    return table[id].kind == KIND_INT || table[id].kind == KIND_BOOL;
}

enum rail_param_effect rail_param_effect_of(enum rail_param id)
{
    return table[id].effect;
}

const char *rail_param_text(enum rail_param id, char *buffer, size_t bytes)
{
    return show(&table[id], &values_now()->of[id], buffer, bytes);
}

/* The name is part of it, so that two variables never cancel; an unset text differs from an empty one. */
uint64_t rail_param_hash(enum rail_param id)
{
    const struct value *v = &values_now()->of[id];
    uint64_t h = rail_hash64(table[id].name, strlen(table[id].name), (uint64_t)v->number);
    return v->word ? rail_hash64(v->word, strlen(v->word), h) : h;
}

uint64_t rail_params_agreed_hash(void)
{
    uint64_t h = 0;
    for (int i = 0; i < RAIL_PARAM_COUNT; i++) {
        if (table[i].effect != RAIL_AGREED) continue;
        uint64_t one = rail_param_hash((enum rail_param)i);
        h = rail_hash64(&one, sizeof one, h);
    }
    return h;
}

void rail_params_report_set(void)
{
    struct values *all = values_now();
    if (atomic_exchange(&all->set_reported, true)) return;
    for (int i = 0; i < RAIL_PARAM_COUNT; i++) {
        char text[512];
        if (all->of[i].from && table[i].effect != RAIL_IGNORED)
            RAIL_INFO(RAIL_ENV, "%s set to %s by %s", table[i].name, show(&table[i], &all->of[i], text, sizeof text),
                      all->of[i].from);
    }
}

bool rail_param_is_known(const char *name, size_t bytes)
{
    static const char *const elsewhere[] = {"RAILCCL_RANK", "RAILCCL_WORLD_SIZE", "RAILCCL_LOCAL_RANK", "RAILCCL_LOCAL_SIZE",
                                            "RAILCCL_HOST", "RAILCCL_LIBRARY",    "RAILCCL_RSH"};
    static const char *const prefixes[] = {"RAILCCL_TEST_", "NCCL_TESTS_"};
    for (int i = 0; i < RAIL_PARAM_COUNT; i++)
        if (strlen(table[i].name) == bytes && memcmp(table[i].name, name, bytes) == 0) return true;
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
        if (strlen(elsewhere[i]) == bytes && memcmp(elsewhere[i], name, bytes) == 0) return true;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) return true;
    return false;
}

void rail_params_report_ignored(void)
{
    struct values *all = values_now();
    if (atomic_exchange(&all->ignored_reported, true)) return;
    for (int i = 0; i < RAIL_PARAM_COUNT; i++)
        if (all->of[i].from && table[i].effect == RAIL_IGNORED)
            RAIL_INFO(RAIL_ENV, "%s (set by %s) has no effect in railccl: %s", table[i].name, all->of[i].from,
                      table[i].text);
    for (char **e = environ; e && *e; e++) {
        size_t bytes = strcspn(*e, "=");
        if (strncmp(*e, "RAILCCL_", 8) != 0 && strncmp(*e, "NCCL_", 5) != 0) continue;
        if (rail_param_is_known(*e, bytes)) continue;
        RAIL_INFO(RAIL_ENV, "%.*s is set, but railccl knows no such variable", (int)bytes, *e);
    }
}

/* ---- the page ---- */

static void markdown_default(FILE *out, const struct entry *e)
{
    if (e->kind == KIND_INT && e->number == -1 && e->low == -1)
        fprintf(out, "automatic");
    else if (e->kind == KIND_INT || e->kind == KIND_BOOL)
        fprintf(out, "%" PRId64, e->number);
    else if (e->word)
        fprintf(out, "`%s`", e->word);
    else
        fprintf(out, "-");
}

static void markdown_allowed(FILE *out, const struct entry *e)
{
    if (e->kind == KIND_INT)
        fprintf(out, "%" PRId64 " to %" PRId64, e->low, e->high);
    else if (e->kind == KIND_BOOL)
        fprintf(out, "0, 1");
    else if (e->kind == KIND_STR)
        fprintf(out, "text");
    else
        for (const char *p = e->choices; *p; p += strcspn(p, "|"), p += *p == '|')
            fprintf(out, "%s`%.*s`", p == e->choices ? "" : ", ", (int)strcspn(p, "|"), p);
}

static void markdown_table(FILE *out, const char *prefix)
{
    fprintf(out, "| variable | default | allowed | on all ranks the same | meaning |\n|---|---|---|---|---|\n");
    for (int i = 0; i < RAIL_PARAM_COUNT; i++) {
        const struct entry *e = &table[i];
        if (e->effect == RAIL_IGNORED || strncmp(e->name, prefix, strlen(prefix)) != 0) continue;
        fprintf(out, "| `%s` | ", e->name);
        markdown_default(out, e);
        fprintf(out, " | ");
        markdown_allowed(out, e);
        fprintf(out, " | %s | %s |\n", e->effect == RAIL_AGREED ? "yes" : "no", e->text);
    }
}

void rail_params_markdown(FILE *out)
{
    fprintf(out,
            "# Environment variables\n\n"
            "This page is written by the library from its own table (`src/base/params.def`); change it there.\n\n"
            "First found wins: the environment; the file that `NCCL_CONF_FILE` names, else `~/.nccl.conf`;\n"
            "`/etc/nccl.conf`; the default. In files, one `NAME=VALUE` per line; lines that start with `#` are\n"
            "comments. An empty value means \"not set\". Values are read once, when the library is first used.\n\n"
            "Numbers may be decimal or start with `0x`, and may end in `K`, `M` or `G` (powers of 1024). \"Automatic\"\n"
            "is written -1. A value that is not understood is reported (from `NCCL_DEBUG=WARN` up) with what is\n"
            "allowed, and the default is used. Variables marked \"on all ranks the same\" are compared when a\n"
            "communicator is made; a difference is an error that names the variable.\n\n"
            "## railccl's own\n\n");
    markdown_table(out, "RAILCCL_");
    fprintf(out, "\n## NCCL's, with effect\n\n");
    markdown_table(out, "NCCL_");
    fprintf(out, "\n## NCCL's, without effect\n\n"
                 "When one of these is set, a line at `NCCL_DEBUG=INFO` (subsystem ENV) says that it has no effect.\n\n"
                 "| variable | why |\n|---|---|\n");
    for (int i = 0; i < RAIL_PARAM_COUNT; i++)
        if (table[i].effect == RAIL_IGNORED) fprintf(out, "| `%s` | %s |\n", table[i].name, table[i].text);
}
