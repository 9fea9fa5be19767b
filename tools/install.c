/* install.c - `railccl install --wheel SITE_PACKAGES`: puts this installation's library in the place of NVIDIA's in a
 * Python environment, and back. wheel.h says how. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"
#include "wheel.h"

static int usage(FILE *out)
{
    fputs("Usage: railccl install --wheel SITE_PACKAGES [--restore | --status] [--dry-run]\n"
          "Puts this installation's libnccl.so.2 in the place of NVIDIA's in a Python environment, so that PyTorch\n"
          "and all else there loads it without a variable being set. NVIDIA's is kept beside it. Running processes\n"
          "keep what they have.\n\n"
          "  --wheel SITE_PACKAGES  the folder with nvidia/nccl/lib/libnccl.so.2 in it, which this prints:\n"
          "                         python3 -c 'import sysconfig; print(sysconfig.get_paths()[\"purelib\"])'\n"
          "  --restore              put NVIDIA's back\n"
          "  --status               say what is there, and change nothing\n"
          "  --dry-run              say what would be done, and change nothing\n"
          "  -h, --help\n\n"
          "Either may be run again, also after a run that was interrupted. pip knows nothing of the exchange: when it\n"
          "installs another nvidia-nccl-cu*, that file is NVIDIA's again. Before `pip uninstall`, --restore.\n"
          "Exit status: 0 it is so now, 1 it could not be done, 2 refused: the text says why; nothing was changed.\n",
          out);
    return out == stdout ? 0 : 2;
}

struct ask { const char *site; bool restore, status, dry_run; };

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct ask *ask)
{
    static const struct option options[] = {
        {"wheel", required_argument, NULL, 'w'}, {"restore", no_argument, NULL, 'r'},
        {"status", no_argument, NULL, 's'},      {"dry-run", no_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},        {0}};
    opterr = 0;
    optind = 0;
    for (int c; (c = getopt_long(argc, argv, "+:h", options, NULL)) != -1;) {
        switch (c) {
        case 'w': ask->site = optarg; break;
        case 'r': ask->restore = true; break;
        case 's': ask->status = true; break;
        case 'd': ask->dry_run = true; break;
        case 'h': return usage(stdout);
        default:
            return fprintf(stderr, "railccl install: %s: %s; --help lists the options\n", argv[optind - 1],
                           c == ':' ? "needs a value" : "no such option"), 2;
        }
    }
    if (optind < argc)
        return fprintf(stderr, "railccl install: %s: takes no arguments; --help lists the options\n", argv[optind]), 2;
    if (!ask->site) return fputs("railccl install: where? --wheel SITE_PACKAGES; --help says more\n", stderr), 2;
    if (ask->status && (ask->restore || ask->dry_run))
        return fputs("railccl install: --status goes without --restore and --dry-run\n", stderr), 2;
    return -1;
}

static void print_packages(const struct wheel *wheel)
{
    int n = wheel->n_packages, match = -1;
    for (int i = 0; i < n; i++) {
        printf("%s%s %s", i ? ", " : "  installed by ", wheel->package[i].name, wheel->package[i].version);
        if (wheel->package[i].matches) match = i;
    }
    if (n == 0) printf("  no installed package lists this file");
    if (n > 1 && match >= 0) printf("; NVIDIA's file is %s's", wheel->package[match].name);
    if (n > 0 && match < 0) printf("; NVIDIA's file is not as it was installed");
    printf("\n");
    if (n > 1) puts("  (they overwrite one another's file; uninstalling one takes it from the others)");
}

static void print_file(const char *label, const struct wheel_file *file, int own)
{
    static const char *const words[] = {[LIBRARY_STRANGE] = "not recognised", [LIBRARY_NCCL] = "NVIDIA's",
                                        [LIBRARY_RAILCCL] = "railccl's"};
    if (!file->there) {
        printf("  %-7s absent\n", label);
        return;
    }
    printf("  %-7s %s", label, words[file->kind]);
    if (file->kind == LIBRARY_STRANGE) printf(" (%s)", file->why);
    else printf(", %lld bytes", (long long)file->st.st_size);
    if (file->kind == LIBRARY_RAILCCL) printf(wheel_same(file->fd, own) ? ", of this build" : ", of another build");
    printf("%s\n", S_ISLNK(file->link.st_mode) ? ", by a symbolic link" : "");
}

static int status(const struct wheel *wheel, int own)
{
    printf("%s/" WHEEL_FILE "\n", wheel->folder);
    print_file("file", &wheel->now, own);
    print_file("backup", &wheel->backup, own);
    if (wheel->left_over) puts("  a half-written file of a run that did not finish; the next one removes it");
    print_packages(wheel);
    return 0;
}

static int change(struct wheel *wheel, const struct ask *ask, int own)
{
    char text[2 * PATH_MAX + 512];
    enum wheel_step step = wheel_decide(wheel, ask->restore, own, text, sizeof text);
    if (step == WHEEL_REFUSE) return fprintf(stderr, "railccl install: %s\n", text), 2;
    printf("%s%s/" WHEEL_FILE ": %s%s\n", ask->dry_run ? "would do: " : "", wheel->folder, text,
           step == WHEEL_SWAP || step == WHEEL_REPLACE ? "; railccl's takes its place" : "");
    print_packages(wheel);
    if (ask->dry_run) return 0;
    if (!wheel_do(wheel, step, own)) return 1;
    wheel_look(wheel);
    if (!wheel->now.there || wheel->now.kind != (ask->restore ? LIBRARY_NCCL : LIBRARY_RAILCCL))
        return fprintf(stderr, "railccl install: %s/" WHEEL_FILE ": is not %s now: somebody else changes it, too\n",
                       wheel->folder, ask->restore ? "NVIDIA's" : "railccl's"), 1;
    if (step != WHEEL_NOTHING && !ask->restore)
        printf("done; back again with: railccl install --restore --wheel '%s'\n", wheel->site);
    return 0;
}

static int run(int argc, char **argv)
{
    struct ask ask = {NULL, false, false, false};
    int result = parse(argc, argv, &ask);
    if (result >= 0) return result;
    char own_path[PATH_MAX];
    bool found = library_own(own_path);
    int own = found ? open(own_path, O_RDONLY | O_CLOEXEC) : -1;
    if (own < 0 && !ask.restore)
        return fprintf(stderr, "railccl install: %s: no " LIBRARY_NAME " of railccl's: build it (`make`), or name it "
                       "in RAILCCL_LIBRARY\n", own_path), 2;
    /* A limit on file sizes is an error to report, not an end. */
    signal(SIGXFSZ, SIG_IGN);
    struct wheel wheel;
    result = 2;
    if (wheel_open(&wheel, ask.site)) result = ask.status ? status(&wheel, own) : change(&wheel, &ask, own);
    wheel_close(&wheel);
    if (own >= 0) close(own);
    return result;
}

const struct tool_command tool_install = {
    "install", "Puts the library into a Python environment in NVIDIA's place, and back.", run};
