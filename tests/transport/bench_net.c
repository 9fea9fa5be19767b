/* bench_net.c - what links over lanes cost against plain sockets, measured in one sitting. Not run by `make check`;
 * bench_net.sh builds it, makes the namespaces and runs it.
 *
 *   bench_net pingpong ADDRESS_A ADDRESS_B [NETNS_A NETNS_B]   8 bytes, both sides publish, then wait; and plain TCP
 *   bench_net stream   ADDRESS_A ADDRESS_B [NETNS_A NETNS_B]   both directions at once, 512 KiB slots; and plain TCP
 *   bench_net idle     ADDRESS_A ADDRESS_B                     cost of a net_progress() that finds nothing
 *
 * ADDRESS may be a list a,b,c: one rail each. Results verify: sizes, signatures and the first and last words. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "transport/net_fixture.h"

enum { KEY = 4711, SLOT_BYTES = 524288, SLOTS = 4 };

static struct { int to[2], from[2]; } pipes; /* between the two processes */
static int side;

static void die(const char *what)
{
    fprintf(stderr, "side %d: %s: %s / %s\n", side, what, strerror(errno), rail_last_error());
    exit(1);
}

static void say(const void *p, size_t n)
{
    if (write(side == 0 ? pipes.to[1] : pipes.from[1], p, n) != (ssize_t)n) die("pipe");
}

static void hear(void *p, size_t n)
{
    for (size_t got = 0; got < n;) {
        ssize_t r = read(side == 0 ? pipes.from[0] : pipes.to[0], (char *)p + got, n - got);
        if (r <= 0) die("the other side is gone");
        got += (size_t)r;
    }
}

static void meet(void)
{
    char c = 'x';
    say(&c, 1);
    hear(&c, 1);
}

static struct net_config config_for(const char *list)
{
    struct net_config c = {.chunk_bytes = 131072, .sockets_per_rail = 1, .connect_timeout_ns = 10 * RAIL_NS_PER_S,
                           .knock_timeout_ns = 5 * RAIL_NS_PER_S};
    c.repairs = !getenv("RAILCCL_REPAIR") || atoi(getenv("RAILCCL_REPAIR")) != 0;
    if (getenv("CHUNK")) c.chunk_bytes = (uint32_t)atoi(getenv("CHUNK"));
    if (getenv("SOCKETS")) c.sockets_per_rail = (uint32_t)atoi(getenv("SOCKETS"));
    char copy[1024];
    snprintf(copy, sizeof copy, "%s", list);
    for (char *save, *a = strtok_r(copy, ",", &save); a; a = strtok_r(NULL, ",", &save)) {
        struct net_interface *rail = &c.rails[c.n_rails];
        struct sockaddr_in *in = (void *)&rail->address.address;
        in->sin_family = AF_INET;
        if (inet_pton(AF_INET, a, &in->sin_addr) != 1) die(a);
        rail->address.bytes = sizeof *in;
        snprintf(rail->name, sizeof rail->name, "rail%u", c.n_rails++);
    }
    return c;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct pair { struct net *net; struct link *out, *in; };

static struct pair pair_open(const char *addresses, size_t slot_bytes)
{
    struct net_config config = config_for(addresses);
    struct pair p = {.net = fixture_net(&config, KEY, 9)};
    struct net_address mine = fixture_address(p.net), theirs;
    say(&mine, sizeof mine);
    hear(&theirs, sizeof theirs);
    struct net_link_request q = {.comm_key = KEY, .n_slots = SLOTS, .slot_bytes = slot_bytes};
    q.from = (uint32_t)side, q.to = (uint32_t)!side, q.sender = true;
    p.out = fixture_open(p.net, &theirs, q);
    q.from = (uint32_t)!side, q.to = (uint32_t)side, q.sender = false;
    p.in = fixture_open(p.net, &theirs, q);
    if (!p.out || !p.in) die("open");
    atomic_fetch_add(&p.net->callers, 1); /* net_enter() */
    void *slot;
    while (p.out->ops->acquire(p.out, &slot) == RAIL_NOT_YET) net_progress_on(p.net);
    return p;
}

static void pair_close(struct pair *p)
{
    while (!p->out->ops->drained(p->out)) net_progress_on(p->net);
    meet();
    p->out->ops->close(p->out);
    p->in->ops->close(p->in);
    net_comm_remove_on(p->net, KEY);
    net_destroy(p->net);
}

/* ---- plain TCP ---- */

static int plain_connect(const char *addresses)
{
    struct net_config config = config_for(addresses);
    struct sockaddr_in a = *(struct sockaddr_in *)(void *)&config.rails[0].address.address, b;
    socklen_t bytes = sizeof a;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (void *)&a, sizeof a) < 0) die("bind");
    if (side == 0) {
        if (listen(fd, 1) < 0 || getsockname(fd, (void *)&a, &bytes) < 0) die("listen");
        say(&a, sizeof a);
        int accepted = accept(fd, NULL, NULL);
        close(fd);
        fd = accepted;
    } else {
        hear(&b, sizeof b);
        if (connect(fd, (void *)&b, sizeof b) < 0) die("connect");
    }
    setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof on);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

enum { BATCHES = 41, PER_BATCH = 2000 };

/* Both sides send 8 bytes, then wait for the other's: what an exchange over plain sockets costs. */
static double plain_exchange_batch(int fd)
{
    uint64_t start = rail_now_ns(), word = 1;
    for (int i = 0; i < PER_BATCH; i++) {
        if (send(fd, &word, 8, MSG_NOSIGNAL) != 8) die("send");
        while (recv(fd, &word, 8, 0) != 8) continue;
    }
    return (double)(rail_now_ns() - start) / PER_BATCH / 1000;
}

/* Half of a ping-pong's round trip. */
static double plain_pingpong_batch(int fd)
{
    uint64_t start = rail_now_ns(), word = 1;
    for (int i = 0; i < PER_BATCH; i++) {
        if (side == 0 && send(fd, &word, 8, MSG_NOSIGNAL) != 8) die("send");
        while (recv(fd, &word, 8, 0) != 8) continue;
        if (side == 1 && send(fd, &word, 8, MSG_NOSIGNAL) != 8) die("send");
    }
    return (double)(rail_now_ns() - start) / PER_BATCH / 2000;
}

static void link_send_word(struct pair *p, uint64_t k)
{
    void *slot;
    while (p->out->ops->acquire(p->out, &slot) == RAIL_NOT_YET) net_progress_on(p->net);
    memcpy(slot, &k, 8);
    p->out->ops->publish(p->out, 8, ~k);
}

static void link_take_word(struct pair *p, uint64_t k)
{
    const void *slot;
    size_t bytes;
    uint64_t signature, word;
    enum rail_result r;
    while ((r = p->in->ops->wait(p->in, &slot, &bytes, &signature)) == RAIL_NOT_YET) net_progress_on(p->net);
    if (r != RAIL_OK) die("wait");
    memcpy(&word, slot, 8);
    if (bytes != 8 || word != k || signature != ~k) die("wrong data");
    p->in->ops->release(p->in);
}

static double link_exchange_batch(struct pair *p, uint64_t *k)
{
    uint64_t start = rail_now_ns();
    for (int i = 0; i < PER_BATCH; i++, ++*k) {
        link_send_word(p, *k);
        link_take_word(p, *k);
    }
    return (double)(rail_now_ns() - start) / PER_BATCH / 1000;
}

static double link_pingpong_batch(struct pair *p, uint64_t *k)
{
    uint64_t start = rail_now_ns();
    for (int i = 0; i < PER_BATCH; i++, ++*k) {
        if (side == 0) link_send_word(p, *k);
        link_take_word(p, *k);
        if (side == 1) link_send_word(p, *k);
    }
    return (double)(rail_now_ns() - start) / PER_BATCH / 2000;
}

static void pingpong(const char *addresses)
{
    int fd = plain_connect(addresses);
    struct pair p = pair_open(addresses, SLOT_BYTES);
    static double us[4][BATCHES];
    uint64_t k = 0, frames_before = 0;
    for (int b = 0; b < BATCHES; b++) {
        meet();
        us[0][b] = plain_pingpong_batch(fd);
        meet();
        us[1][b] = link_pingpong_batch(&p, &k);
        meet();
        us[2][b] = plain_exchange_batch(fd);
        meet();
        us[3][b] = link_exchange_batch(&p, &k);
    }
    (void)frames_before;
    if (side == 0) {
        static const char *const names[] = {"plain ping-pong, half", "links ping-pong, half", "plain exchange",
                                            "links exchange"};
        for (int i = 0; i < 4; i++) {
            qsort(us[i], BATCHES, sizeof(double), compare);
            printf("%-24s 8 B   min %6.3f us   median %6.3f us\n", names[i], us[i][0], us[i][BATCHES / 2]);
        }
        printf("links exchange / plain half round trip: min %.2f, median %.2f\n", us[3][0] / us[0][0],
               us[3][BATCHES / 2] / us[0][BATCHES / 2]);
        printf("frames per message: %.4f\n", (double)p.net->up[0]->lane.sent_frames / (double)k);
    }
    pair_close(&p);
    close(fd);
}

static double seconds(void) { return getenv("SECONDS_EACH") ? atof(getenv("SECONDS_EACH")) : 4; }

/* Payload received per second, from the second quarter on. */
static double plain_stream(int fd)
{
    static uint8_t out[SLOT_BYTES], in[SLOT_BYTES];
    uint64_t start = rail_now_ns(), from = 0, now, end = start + (uint64_t)(seconds() * 1e9), got = 0, at_from = 0;
    while ((now = rail_now_ns()) < end) {
        ssize_t n = recv(fd, in, sizeof in, 0);
        if (n > 0) got += (uint64_t)n;
        ssize_t m = send(fd, out, sizeof out, MSG_NOSIGNAL);
        if (!from && now > start + (end - start) / 4) from = now, at_from = got;
        if (n <= 0 && m <= 0) sched_yield();
    }
    double rate = (double)(got - at_from) / (double)(rail_now_ns() - from) * 1e9;
    /* The other side may still be sending. */
    shutdown(fd, SHUT_WR);
    fcntl(fd, F_SETFL, 0);
    while (recv(fd, in, sizeof in, 0) > 0) continue;
    return rate;
}

static double link_stream(struct pair *p)
{
    static uint8_t touch[64];
    uint64_t start = rail_now_ns(), from = 0, now, end = start + (uint64_t)(seconds() * 1e9), got = 0, at_from = 0;
    uint64_t sent = 0, taken = 0, limit = UINT64_MAX;
    for (;;) {
        bool moved = false;
        void *slot;
        const void *read_slot;
        size_t bytes;
        uint64_t signature;
        now = rail_now_ns();
        if (limit == UINT64_MAX && now >= end) { /* agree on where to stop */
            meet();
            uint64_t theirs;
            say(&sent, sizeof sent);
            hear(&theirs, sizeof theirs);
            limit = theirs;
        }
        if (limit == UINT64_MAX && p->out->ops->acquire(p->out, &slot) == RAIL_OK) {
            memcpy(slot, &sent, 8);
            memcpy((char *)slot + SLOT_BYTES - 8, &sent, 8);
            p->out->ops->publish(p->out, SLOT_BYTES, sent++);
            moved = true;
        }
        enum rail_result r = p->in->ops->wait(p->in, &read_slot, &bytes, &signature);
        if (r == RAIL_OK) {
            if (bytes != SLOT_BYTES || signature != taken || memcmp(read_slot, &taken, 8) != 0 ||
                memcmp((const char *)read_slot + SLOT_BYTES - 8, &taken, 8) != 0)
                die("wrong data");
            memcpy(touch, read_slot, sizeof touch);
            p->in->ops->release(p->in);
            taken++;
            if (now < end) got += bytes;
            moved = true;
        } else if (r != RAIL_NOT_YET) {
            die("wait");
        }
        if (!from && now > start + (end - start) / 4) from = now, at_from = got;
        moved |= net_progress_on(p->net);
        if (!moved) sched_yield();
        if (limit != UINT64_MAX && taken == limit) break;
    }
    return (double)(got - at_from) / (double)(end - from) * 1e9;
}

static void stream(const char *addresses)
{
    double rate[2][2];
    int fd = plain_connect(addresses);
    meet();
    rate[0][side] = plain_stream(fd);
    close(fd);
    struct pair p = pair_open(addresses, SLOT_BYTES);
    meet();
    rate[1][side] = link_stream(&p);
    pair_close(&p);
    for (int i = 0; i < 2; i++) {
        say(&rate[i][side], sizeof(double));
        hear(&rate[i][!side], sizeof(double));
    }
    double line = getenv("LINE_MBIT") ? atof(getenv("LINE_MBIT")) * 1e6 / 8 : 0;
    if (side == 0)
        for (int i = 0; i < 2; i++) {
            printf("%-6s both ways at once: %9.3f and %9.3f MB/s", i ? "links" : "plain", rate[i][0] / 1e6,
                   rate[i][1] / 1e6);
            if (line > 0) printf("   %.2f %% and %.2f %% of the line", rate[i][0] / line * 100, rate[i][1] / line * 100);
            printf("\n");
        }
}

static void idle(const char *addresses)
{
    struct pair p = pair_open(addresses, SLOT_BYTES);
    meet();
    usleep(50000);
    double best = 1e9;
    if (side == 0) {
        for (int b = 0; b < 20; b++) {
            uint64_t start = rail_now_ns();
            for (int i = 0; i < 20000; i++) net_progress_on(p.net);
            double ns = (double)(rail_now_ns() - start) / 20000;
            if (ns < best) best = ns;
        }
        printf("net_progress() in vain, %u lanes: %.0f ns\n", p.net->n_up, best);
    }
    meet();
    pair_close(&p);
}

static void enter(const char *netns)
{
    char path[128];
    snprintf(path, sizeof path, "/var/run/netns/%s", netns);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0) die(path);
    close(fd);
}

static void run_side(int argc, char **argv)
{
    if (argc > 5) enter(argv[4 + side]);
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(side, &set);
    if (!getenv("UNPINNED")) sched_setaffinity(0, sizeof set, &set);
    const char *addresses = argv[2 + side];
    if (strcmp(argv[1], "pingpong") == 0) pingpong(addresses);
    else if (strcmp(argv[1], "stream") == 0) stream(addresses);
    else idle(addresses);
}

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    if (pipe(pipes.to) < 0 || pipe(pipes.from) < 0) return 1;
    pid_t child = fork();
    side = child == 0;
    close(side == 0 ? pipes.to[0] : pipes.to[1]); /* so that a read ends when the other side does */
    close(side == 0 ? pipes.from[1] : pipes.from[0]);
    run_side(argc, argv);
    int status = 0;
    if (child > 0) waitpid(child, &status, 0);
    return status != 0;
}
