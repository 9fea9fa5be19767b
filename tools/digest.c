/* digest.c - `railccl digest A B`: the first call whose result differs between two runs that wrote RAILCCL_DIGEST_FILE.
 *
 * A line is "COMMUNICATOR RANK/RANKS CALL DIGEST WORDS". Calls are matched by the first three; order in a file does not
 * matter, so several ranks may have written into one. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

struct call {
    unsigned communicator, rank, ranks;
    uint64_t number;
    char digest[24], words[104];
};

struct list {
    const char *path;
    struct call *calls;
    size_t n, room;
};

/* By communicator, then call, then rank: the first difference in this order is the first that happened. */
static int compare(const void *a, const void *b)
{
    const struct call *x = a, *y = b;
    if (x->communicator != y->communicator) return x->communicator < y->communicator ? -1 : 1;
    if (x->ranks != y->ranks) return x->ranks < y->ranks ? -1 : 1;
    if (x->number != y->number) return x->number < y->number ? -1 : 1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

static int add(struct list *list, const char *line, size_t number)
{
    if (list->n == list->room) {
        size_t room = list->room ? 2 * list->room : 1024;
        struct call *more = realloc(list->calls, room * sizeof *more);
        if (!more) return fprintf(stderr, "railccl digest: out of memory\n"), -1;
        list->calls = more;
        list->room = room;
    }
    struct call *c = &list->calls[list->n];
    memset(c, 0, sizeof *c);
    if (sscanf(line, "%u %u/%u %" SCNu64 " %23s %103[^\n]", &c->communicator, &c->rank, &c->ranks, &c->number, c->digest,
               c->words) != 6)
        return fprintf(stderr, "railccl digest: %s:%zu: not a line of RAILCCL_DIGEST_FILE\n", list->path, number), -1;
    list->n++;
    return 0;
}

static int read_list(struct list *list, const char *path)
{
    char line[512];
    *list = (struct list){.path = path};
    FILE *file = fopen(path, "r");
    if (!file) return perror(path), -1;
    int failed = 0;
    for (size_t number = 1; !failed && fgets(line, sizeof line, file); number++) failed = add(list, line, number);
    fclose(file);
    if (!failed && list->n == 0) failed = (fprintf(stderr, "railccl digest: %s holds no calls\n", path), -1);
    if (!failed) qsort(list->calls, list->n, sizeof *list->calls, compare);
    return failed;
}

static void show(const struct call *a, const struct call *b)
{
    printf("communicator %u, call %" PRIu64 ", rank %u of %u: ", a->communicator, a->number, a->rank, a->ranks);
    if (strcmp(a->words, b->words) != 0) printf("%s against %s\n", a->words, b->words);
    else printf("%s: %s against %s\n", a->words, a->digest, b->digest);
}

/* Every rank of the first call that differs. 1 when one does. */
static int report(const struct list *a, const struct list *b)
{
    size_t same = 0, alone = 0;
    const struct call *first = NULL;
    for (size_t i = 0, k = 0; i < a->n || k < b->n;) {
        int order = i == a->n ? 1 : k == b->n ? -1 : compare(&a->calls[i], &b->calls[k]);
        if (order) {
            alone++;
            i += order < 0;
            k += order > 0;
            continue;
        }
        const struct call *x = &a->calls[i++], *y = &b->calls[k++];
        if (strcmp(x->digest, y->digest) == 0 && strcmp(x->words, y->words) == 0) {
            same++;
        } else if (!first || (x->communicator == first->communicator && x->number == first->number && x->ranks == first->ranks)) {
            if (!first) printf("first difference:\n");
            first = first ? first : x;
            show(x, y);
        }
    }
    if (alone) printf("%zu calls stand in one file only\n", alone);
    if (!first) printf("%zu calls in both, all alike\n", same);
    return first != NULL || alone > 0;
}

static int usage(FILE *out)
{
    fputs("Usage: railccl digest A B\n"
          "Compares what two runs wrote with RAILCCL_DIGEST_FILE and names the first call whose result differs.\n"
          "Exit status: 0 alike, 1 different, 2 a file could not be read.\n", out);
    return out == stdout ? 0 : 2;
}

static int run(int argc, char **argv)
{
    struct list a = {0}, b = {0};
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) return usage(stdout);
    if (argc != 3) return usage(stderr);
    int status = read_list(&a, argv[1]) || read_list(&b, argv[2]) ? 2 : report(&a, &b);
    free(a.calls);
    free(b.calls);
    return status;
}

const struct tool_command tool_digest = {"digest", "Compare the results of two runs, call by call.", run};
