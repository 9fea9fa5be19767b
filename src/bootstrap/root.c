/* root.c - the meeting point behind a unique id.
 *
 *   GATHERING   ranks arrive, prove the secret, say hello. When all n are there each gets its parent's addresses:
 *   WELCOMED    ranks build the tree and say JOINED one by one; news of one that cannot goes to the others. All: over.
 *   REFUSING    it went wrong (duplicate, other n, somebody died, deadline): everybody who was here has heard why, and
 *               who comes now hears it, too. Over when all n have heard, or after REFUSING_NS.
 *
 * Lives on the service thread; `lock` only orders its creation before that. */
#include "bootstrap/root.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/params.h"
#include "bootstrap/acceptor.h"
#include "bootstrap/conn.h"
#include "bootstrap/tree.h"
#include "topo/machine.h"

/* Late comers of a job start within a minute of one another, or not at all. */
#define REFUSING_NS (60 * RAIL_NS_PER_S)
enum {
    RANKS_MAX = 1 << 20,  /* a table of 8 MiB; no machine is larger */
    BACKLOG = 4096,       /* the kernel caps it at net.core.somaxconn */
    MARGIN_FLOOR_MS = 50, /* a rank hears the root's list before its own deadline: a fifth of it, 50 ms to 2 s */
    MARGIN_CEILING_MS = 2000,
    DESCRIPTORS_SPARE = 1024, /* beside one per rank */
};

enum root_state { GATHERING, WELCOMED, REFUSING, OVER };

struct root_peer {
    struct conn conn; /* first: cast from source */
    struct root *root;
    struct wire_hello hello;
    bool joined;
};

struct root {
    pthread_mutex_t lock;
    enum root_state state;
    bool fixed;
    uint8_t key[AUTH_KEY_BYTES], key_id[AUTH_ID_BYTES];
    struct acceptor door;
    struct service_timer timer, end_timer;
    uint64_t created_ns, first_ns, give_up_ns; /* give_up_ns: before the first waiting rank does */
    uint32_t n_ranks, n_here, n_joined, features;
    struct root_peer **peers; /* [n_ranks], NULL: not here */
    bool *told;               /* [n_ranks], REFUSING: has heard the verdict */
    uint32_t n_told;
    struct wire_news verdict;
};

/* ---- the end ---- */

static void end_fired(struct service_timer *timer)
{
    struct root *root = (struct root *)(void *)((char *)timer - offsetof(struct root, end_timer));
    pthread_mutex_lock(&root->lock); /* whoever set the timer has left */
    pthread_mutex_unlock(&root->lock);
    pthread_mutex_destroy(&root->lock);
    for (uint32_t r = 0; root->peers && r < root->n_ranks; r++) free(root->peers[r]);
    free(root->peers);
    free(root->told);
    free(root);
}

/* Everything is closed at once; the memory goes when no callback is inside any more. */
static void end(struct root *root)
{
    if (root->state == OVER) return;
    root->state = OVER;
    acceptor_close(&root->door);
    service_timer_cancel(&root->timer);
    for (uint32_t r = 0; root->peers && r < root->n_ranks; r++)
        if (root->peers[r]) conn_close(&root->peers[r]->conn);
    memset(root->key, 0, sizeof root->key);
    service_timer_set(&root->end_timer, rail_now_ns());
}

static void note_told(struct root *root, uint32_t rank)
{
    if (rank >= root->n_ranks || root->told[rank]) return;
    root->told[rank] = true;
    root->n_told++;
}

static void tell(struct root *root, struct conn *conn, uint32_t rank)
{
    /* A few hundred bytes into a fresh connection: they fit its buffer, and nothing unread is left to reset it. */
    (void)conn_queue_copy(conn, FRAME_NEWS, 0, &root->verdict, sizeof root->verdict);
    conn_flush(conn);
    conn_close(conn);
    note_told(root, rank);
}

static bool everybody_heard(const struct root *root) { return root->n_ranks > 0 && root->n_told == root->n_ranks; }

static void refuse_all(struct root *root, uint32_t culprit, enum rail_result result)
{
    root->verdict.culprit = culprit;
    root->verdict.result = result;
    RAIL_INFO(RAIL_BOOTSTRAP, "bootstrap root: gives up: %s", root->verdict.text);
    bool welcomed = root->state == WELCOMED;
    root->state = REFUSING;
    for (uint32_t r = 0; r < root->n_ranks; r++) {
        if (!root->peers[r]) continue;
        if (conn_is_open(&root->peers[r]->conn)) tell(root, &root->peers[r]->conn, r);
        note_told(root, r); /* one that went away will not ask again */
    }
    /* A fixed address must be free for the next attempt; and once welcomed, nobody else will come. */
    if (welcomed || root->fixed || everybody_heard(root))
        end(root);
    else
        service_timer_set(&root->timer, rail_now_ns() + REFUSING_NS);
}

/* ---- who is missing ---- */

static void list_missing(const struct root *root, char *out, size_t bytes, uint32_t *first_out)
{
    size_t used = 0;
    *first_out = root->n_ranks;
    for (uint32_t r = 0; r < root->n_ranks; r++) {
        if (root->peers[r]) continue;
        if (*first_out == root->n_ranks) *first_out = r;
        uint32_t last = r;
        while (last + 1 < root->n_ranks && !root->peers[last + 1]) last++;
        int n = last > r ? snprintf(out + used, bytes - used, "%s%u-%u", used ? ", " : "", r, last)
                         : snprintf(out + used, bytes - used, "%s%u", used ? ", " : "", r);
        if (n < 0 || used + (size_t)n + 5 >= bytes) {
            strcpy(out + used, " ...");
            return;
        }
        used += (size_t)n;
        r = last;
    }
}

static void timer_fired(struct service_timer *timer)
{
    struct root *root = (struct root *)(void *)((char *)timer - offsetof(struct root, timer));
    pthread_mutex_lock(&root->lock);
    if (root->state == GATHERING && root->n_here > 0) {
        char missing[200];
        uint32_t first;
        list_missing(root, missing, sizeof missing, &first);
        snprintf(root->verdict.text, sizeof root->verdict.text,
                 "bootstrap: rank %s (%u of %u) did not arrive within %.1f s of the first; look at their logs, and "
                 "whether they reach the root", missing, root->n_ranks - root->n_here, root->n_ranks,
                 (double)(rail_now_ns() - root->first_ns) / 1e9);
        refuse_all(root, first, RAIL_E_TIMEOUT);
    } else if (root->state != OVER) {
        if (root->state == GATHERING)
            RAIL_INFO(RAIL_BOOTSTRAP,
                      "bootstrap root: nobody came within RAILCCL_ROOT_TIMEOUT_S; the unique id is void");
        end(root);
    }
    pthread_mutex_unlock(&root->lock);
}

/* ---- welcome ---- */

static bool joined_or_news(struct conn *conn, const struct frame_head *head)
{
    const struct root_peer *peer = (const struct root_peer *)(const void *)conn;
    if (peer->root->state != WELCOMED) return false;
    return (head->type == FRAME_JOINED && head->bytes == 0) ||
           (head->type == FRAME_NEWS && head->bytes == sizeof(struct wire_news));
}

/* A rank's addresses as the one with host key `for_host` sees them: loopback means itself on another host. */
static uint32_t endpoints_for(const struct wire_hello *of, uint64_t for_host, struct endpoint *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < of->n_endpoints; i++)
        if (of->host_key == for_host || !endpoint_is_loopback(&of->endpoints[i])) out[n++] = of->endpoints[i];
    if (n > 0) return n;
    memcpy(out, of->endpoints, of->n_endpoints * sizeof *out); /* host keys can be set wrongly; let it try */
    return of->n_endpoints;
}

static void welcome_all(struct root *root)
{
    struct wire_welcome welcome = {.features = root->features};
    rail_random(welcome.session, sizeof welcome.session);
    root->state = WELCOMED;
    acceptor_close(&root->door); /* before anybody is told: who comes now comes for the next communicator */
    service_timer_cancel(&root->timer);
    RAIL_INFO(RAIL_BOOTSTRAP, "bootstrap root: all %u ranks arrived within %.3f s of the first", root->n_ranks,
              (double)(rail_now_ns() - root->first_ns) / 1e9);
    for (uint32_t r = 0; r < root->n_ranks; r++) {
        const struct wire_hello *parent = &root->peers[tree_parent(r)]->hello;
        welcome.parent = parent->person;
        memset(welcome.endpoints, 0, sizeof welcome.endpoints);
        welcome.n_endpoints = r ? endpoints_for(parent, root->peers[r]->hello.host_key, welcome.endpoints) : 0;
        (void)conn_queue_copy(&root->peers[r]->conn, FRAME_WELCOME, 0, &welcome, sizeof welcome);
        conn_flush(&root->peers[r]->conn);
    }
}

/* ---- ranks ---- */

static void peer_joined(struct root_peer *peer)
{
    struct root *root = peer->root;
    peer->joined = true;
    conn_close(&peer->conn);
    if (++root->n_joined == root->n_ranks) end(root);
}

static void peer_gave_news(struct root_peer *peer, const struct wire_news *news)
{
    struct root *root = peer->root;
    conn_close(&peer->conn);
    root->verdict = *news;
    root->verdict.text[WIRE_TEXT_BYTES - 1] = '\0';
    refuse_all(root, news->culprit, news->result <= RAIL_E_ABORTED ? (enum rail_result)news->result : RAIL_E_REMOTE);
}

static void peer_gone(struct root_peer *peer)
{
    struct root *root = peer->root;
    uint32_t rank = peer->hello.person.rank;
    conn_close(&peer->conn);
    snprintf(root->verdict.text, sizeof root->verdict.text,
             "bootstrap: rank %u (host %s, pid %u) died, gave up or lost its connection while the ranks were "
             "joining", rank,
             peer->hello.person.host, peer->hello.person.pid);
    refuse_all(root, rank, RAIL_E_REMOTE);
}

static void peer_ready(struct service_source *source, uint32_t events)
{
    struct root_peer *peer = (struct root_peer *)(void *)source;
    pthread_mutex_t *lock = &peer->root->lock;
    struct frame frame;
    (void)events;
    pthread_mutex_lock(lock);
    conn_flush(&peer->conn);
    enum rail_result result = conn_receive(&peer->conn, &frame);
    if (result == RAIL_OK && frame.head.type == FRAME_JOINED) {
        peer_joined(peer);
    } else if (result == RAIL_OK) {
        struct wire_news news;
        memcpy(&news, frame.payload->data, sizeof news);
        blob_drop(frame.payload);
        peer_gave_news(peer, &news);
    } else if (result != RAIL_NOT_YET) {
        peer_gone(peer);
    }
    pthread_mutex_unlock(lock);
}

/* Writes into the verdict what is wrong with this hello; false when nothing is. */
static bool find_fault(struct root *root, const struct wire_hello *hello, uint32_t *culprit_out)
{
    const struct wire_person *who = &hello->person;
    char *text = root->verdict.text;
    size_t bytes = sizeof root->verdict.text;
    *culprit_out = who->rank;
    if (hello->version != WIRE_VERSION) {
        snprintf(text, bytes, "bootstrap: rank %u (host %s, pid %u) speaks protocol version %u, the root %u; use one "
                 "version of railccl on all hosts", who->rank, who->host, who->pid, hello->version, WIRE_VERSION);
    } else if (hello->n_ranks < 1 || hello->n_ranks > RANKS_MAX || who->rank >= hello->n_ranks) {
        snprintf(text, bytes, "bootstrap: host %s, pid %u says it is rank %u of %u", who->host, who->pid, who->rank,
                 hello->n_ranks);
    } else if (root->peers && hello->n_ranks != root->n_ranks) {
        const struct wire_person *other = NULL;
        for (uint32_t r = 0; !other && r < root->n_ranks; r++)
            if (root->peers[r]) other = &root->peers[r]->hello.person;
        snprintf(text, bytes,
                 "bootstrap: rank %u (host %s, pid %u) says there are %u ranks, rank %u (host %s, pid %u) says "
                 "%u", who->rank, who->host, who->pid, hello->n_ranks, other ? other->rank : 0,
                 other ? other->host : "?", other ? other->pid : 0, root->n_ranks);
    } else if (root->peers && root->peers[who->rank]) {
        const struct wire_person *other = &root->peers[who->rank]->hello.person;
        snprintf(text, bytes,
                 "bootstrap: two processes say they are rank %u: host %s, pid %u and host %s, pid %u; look at "
                 "how they learn their number (RANK, LOCAL_RANK)", who->rank, other->host, other->pid, who->host,
                 who->pid);
    } else {
        return false;
    }
    return true;
}

static bool make_table(struct root *root, uint32_t n_ranks)
{
    if (root->peers) return true;
    root->peers = calloc(n_ranks, sizeof root->peers[0]);
    root->told = calloc(n_ranks, sizeof root->told[0]);
    if (!root->peers || !root->told) {
        free(root->peers);
        free(root->told);
        root->peers = NULL;
        root->told = NULL;
        return false;
    }
    root->n_ranks = n_ranks;
    root->first_ns = rail_now_ns();
    root->features = UINT32_MAX;
    return true;
}

/* The root must speak before the first waiting rank gives up by itself. */
static void heed_deadline(struct root *root, uint32_t left_ms)
{
    if (left_ms != UINT32_MAX) {
        uint64_t margin_ms = left_ms / 5;
        if (margin_ms < MARGIN_FLOOR_MS) margin_ms = MARGIN_FLOOR_MS;
        if (margin_ms > MARGIN_CEILING_MS) margin_ms = MARGIN_CEILING_MS;
        uint64_t at_ns = rail_now_ns() + (left_ms > margin_ms ? left_ms - margin_ms : 0) * RAIL_NS_PER_MS;
        if (at_ns < root->give_up_ns) root->give_up_ns = at_ns;
    }
    if (root->give_up_ns == UINT64_MAX)
        service_timer_cancel(&root->timer);
    else
        service_timer_set(&root->timer, root->give_up_ns);
}

static void arrived(void *owner, const uint8_t key_id[AUTH_ID_BYTES], int fd, struct blob *payload)
{
    (void)key_id;
    struct root *root = owner;
    struct root_peer *peer = calloc(1, sizeof *peer);
    if (peer) memcpy(&peer->hello, payload->data, sizeof peer->hello);
    blob_drop(payload);
    if (!peer || conn_open(&peer->conn, fd, peer_ready, joined_or_news) != RAIL_OK) {
        free(peer);
        socket_close(fd); /* the rank notices and gives up */
        return;
    }
    peer->root = root;
    peer->hello.person.host[WIRE_HOST_BYTES - 1] = '\0';
    socket_keep(fd);
    uint32_t rank = peer->hello.person.rank, culprit;
    if (root->state == REFUSING) {
        tell(root, &peer->conn, rank);
        free(peer);
        if (everybody_heard(root)) end(root);
        return;
    }
    bool fault = find_fault(root, &peer->hello, &culprit);
    bool endpoints_sane = peer->hello.n_endpoints <= ENDPOINTS_MAX;
    for (uint32_t i = 0; endpoints_sane && i < peer->hello.n_endpoints; i++)
        endpoints_sane = endpoint_valid(&peer->hello.endpoints[i]);
    if (!fault && (!endpoints_sane || !make_table(root, peer->hello.n_ranks))) {
        fault = true;
        snprintf(root->verdict.text, sizeof root->verdict.text, "bootstrap: the root %s", endpoints_sane ?
                 "has no memory for its table of ranks" : "received a hello that makes no sense");
    }
    if (fault) {
        root->verdict.culprit = culprit;
        root->verdict.result = RAIL_E_USAGE;
        tell(root, &peer->conn, UINT32_MAX);
        free(peer);
        refuse_all(root, culprit, RAIL_E_USAGE);
        return;
    }
    root->peers[rank] = peer;
    root->features &= peer->hello.features;
    heed_deadline(root, peer->hello.left_ms);
    if (++root->n_here == root->n_ranks) welcome_all(root);
}

/* More ranks than descriptors: the soft limit is often 1024 where the hard one is a million. */
static bool starved(void *owner, const char *text)
{
    struct root *root = owner;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        rlim_t want = limit.rlim_cur + root->n_ranks + DESCRIPTORS_SPARE;
        limit.rlim_cur = want < limit.rlim_max ? want : limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) == 0) {
            RAIL_INFO(RAIL_BOOTSTRAP, "bootstrap root: raised this process's limit of open files to %llu for %u ranks",
                      (unsigned long long)limit.rlim_cur, root->n_ranks);
            return true;
        }
    }
    if (root->state != GATHERING || root->n_here == 0) return false;
    snprintf(root->verdict.text, sizeof root->verdict.text, "bootstrap root: %s", text);
    refuse_all(root, 0, RAIL_E_SYSTEM);
    return false;
}

/* ---- creation ---- */

static bool look_up(void *owner, const uint8_t key_id[AUTH_ID_BYTES], uint8_t key_out[AUTH_KEY_BYTES])
{
    const struct root *root = owner;
    if (memcmp(key_id, root->key_id, AUTH_ID_BYTES) != 0) return false;
    memcpy(key_out, root->key, AUTH_KEY_BYTES);
    return true;
}

static struct root *create(const uint8_t secret[BOOTSTRAP_SECRET_BYTES])
{
    struct root *root = calloc(1, sizeof *root);
    if (!root) return NULL;
    pthread_mutex_init(&root->lock, NULL);
    auth_derive(secret, "root", root->key);
    auth_key_id(root->key, root->key_id);
    root->timer.fire = timer_fired;
    root->end_timer.fire = end_fired;
    root->created_ns = rail_now_ns();
    root->give_up_ns = UINT64_MAX;
    acceptor_init(&root->door, &(struct acceptor_config){
        .purpose = "root",
        .lookup = look_up,
        .first = FRAME_HELLO,
        .first_bytes = sizeof(struct wire_hello),
        .arrived = arrived,
        .starved = starved,
        .owner = root,
        .lock = &root->lock,
    });
    return root;
}

/* Before the service thread knows it. */
static void destroy(struct root *root)
{
    acceptor_close(&root->door);
    pthread_mutex_destroy(&root->lock);
    free(root);
}

static enum rail_result start(struct root *root)
{
    pthread_mutex_lock(&root->lock);
    enum rail_result result = acceptor_start(&root->door);
    if (result == RAIL_OK)
        service_timer_set(&root->timer,
                          root->created_ns + (uint64_t)rail_param_int(RAIL_PARAM_ROOT_TIMEOUT_S) * RAIL_NS_PER_S);
    pthread_mutex_unlock(&root->lock);
    return result;
}

static bool link_local(const struct machine_interface *interface)
{
    struct endpoint endpoint;
    endpoint_from(&endpoint, &interface->address);
    return endpoint_is_link_local(&endpoint);
}

/* Up to ENDPOINTS_MAX of this host's addresses; link-local ones only when there is no other. */
static int listen_here(struct root *root, const struct machine_interface *interfaces, int n)
{
    int error = EADDRNOTAVAIL;
    for (int local = 0; local < 2 && root->door.n_listeners == 0; local++)
        for (int i = 0; i < n; i++)
            if (link_local(&interfaces[i]) == local &&
                acceptor_listen(&root->door, &interfaces[i].address, BACKLOG) != 0)
                error = errno;
    return root->door.n_listeners > 0 ? 0 : error;
}

static enum rail_result create_random(struct unique_id *id)
{
    enum { INTERFACES_MAX = 16 };
    struct machine_interface interfaces[INTERFACES_MAX];
    int n = machine_interfaces(interfaces, INTERFACES_MAX);
    if (n == 0) return RAIL_E_SYSTEM; /* its text names the variable */
    memset(id, 0, sizeof *id);
    id->kind = ID_ROOT_RUNS;
    rail_random(id->secret, sizeof id->secret);
    struct root *root = create(id->secret);
    if (!root) return rail_fail(RAIL_E_SYSTEM, "ncclGetUniqueId: out of memory");
    int error = listen_here(root, interfaces, n < INTERFACES_MAX ? n : INTERFACES_MAX);
    if (error) {
        destroy(root);
        return rail_fail(RAIL_E_SYSTEM, "ncclGetUniqueId: cannot listen on interface %s or any other (%d in all): %s%s",
                         interfaces[0].name, n, strerror(error), error == EMFILE ? "; raise ulimit -n" : "");
    }
    id->n_endpoints = (uint8_t)root->door.n_listeners;
    memcpy(id->endpoints, root->door.endpoints, sizeof id->endpoints);
    id_seal(id);
    enum rail_result result = start(root);
    if (result != RAIL_OK) destroy(root);
    return result;
}

enum rail_result bootstrap_root_create(uint8_t out[BOOTSTRAP_ID_BYTES])
{
    struct unique_id id;
    const char *fixed = rail_param_str(RAIL_PARAM_NCCL_COMM_ID);
    if (fixed && fixed[0])
        RAIL_TRY(id_fixed_create(&(struct id_fixed){.what = "NCCL_COMM_ID", .text = fixed, .ports = 1, .warn = true},
                                 &id));
    else
        RAIL_TRY(create_random(&id));
    memcpy(out, &id, BOOTSTRAP_ID_BYTES);
    return RAIL_OK;
}

/* The first free one of the endpoint's ports. */
static int listen_at(struct root *root, const struct endpoint *endpoint, bool any_address)
{
    for (uint32_t p = 0; p < endpoint->ports; p++) {
        struct sockaddr_storage address;
        struct endpoint at = *endpoint;
        if (any_address) {
            memset(at.address, 0, sizeof at.address);
            at.family = 6;
        }
        endpoint_to(&at, p, 0, &address);
        if (acceptor_listen(&root->door, &address, BACKLOG) == 0) return 0;
        if (any_address && errno != EADDRINUSE) { /* no IPv6 in this kernel */
            at.family = 4;
            endpoint_to(&at, p, 0, &address);
            if (acceptor_listen(&root->door, &address, BACKLOG) == 0) return 0;
        }
        if (errno != EADDRINUSE) break;
    }
    return errno;
}

enum rail_result root_start_fixed(const struct unique_id *id)
{
    struct root *root = create(id->secret);
    if (!root) return rail_fail(RAIL_E_SYSTEM, "bootstrap root: out of memory");
    root->fixed = true;
    int error = 0;
    for (int i = 0; i < (id->any_address ? 1 : id->n_endpoints); i++) {
        int e = listen_at(root, &id->endpoints[i], id->any_address);
        if (e) error = e;
    }
    if (root->door.n_listeners == 0) {
        struct sockaddr_storage address;
        char text[ENDPOINT_TEXT_BYTES];
        endpoint_to(&id->endpoints[0], 0, 0, &address);
        sockaddr_print(&address, text);
        destroy(root);
        enum rail_result result = error == EADDRINUSE ? RAIL_NOT_YET : RAIL_E_SYSTEM;
        rail_fail_quietly(result, "bootstrap root: rank 0 cannot listen on %s: %s; %s", text, strerror(error),
                          error == EADDRNOTAVAIL ? "the address of NCCL_COMM_ID, RAILCCL_ROOT or MASTER_ADDR must be "
                          "one of rank 0's own" : error == EMFILE ? "raise ulimit -n" : "choose another port");
        return result;
    }
    enum rail_result result = start(root);
    if (result != RAIL_OK) destroy(root);
    return result;
}
