/* test_fd_pass.c - one giver, many takers: processes and threads, early and late, wrong keys, strangers, time-outs. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"

enum { BYTES = 4096, MANY_MAX = 512 };

static uint8_t key[32];
static int memory;
static int descriptors_before;

static int open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static struct rail_deadline seconds(double s)
{
    return rail_deadline_in_ns((uint64_t)(s * 1e9));
}

/* A child that takes the memory and adds one to its first word. */
static pid_t fork_taker(const uint8_t its_key[32], double timeout_s)
{
    pid_t child = fork();
    if (child != 0) return child;
    int fd;
    void *p;
    if (rail_fd_take(its_key, seconds(timeout_s), NULL, &fd) != RAIL_OK) _exit(1);
    if (!(fcntl(fd, F_GETFD) & FD_CLOEXEC) || rail_memfd_map(fd, BYTES, &p) != RAIL_OK) _exit(2);
    atomic_fetch_add((_Atomic uint32_t *)p, 1);
    _exit(0);
}

static int exit_code(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static uint32_t first_word(void)
{
    void *p;
    assert_int_equal(rail_memfd_map(memory, BYTES, &p), RAIL_OK);
    uint32_t n = atomic_load((_Atomic uint32_t *)p);
    rail_memory_unmap(p, BYTES);
    return n;
}

static void nobody_to_serve_is_done_at_once(void **state)
{
    (void)state;
    struct fd_giver *g;
    assert_int_equal(rail_fd_giver_open(key, &g), RAIL_OK);
    assert_int_equal(rail_fd_giver_serve(g, memory, 0, seconds(0), NULL), RAIL_OK);
    rail_fd_giver_close(g);
    rail_fd_giver_close(NULL);
}

static void hundreds_of_processes_get_the_same_memory(void **state)
{
    (void)state;
    struct fd_giver *g;
    pid_t children[MANY_MAX];
    int many = getenv("RAILCCL_TEST_LONG") ? MANY_MAX : 100;
    for (int i = 0; i < many / 2; i++) children[i] = fork_taker(key, 20); /* before the giver is there */
    assert_int_equal(rail_fd_giver_open(key, &g), RAIL_OK);
    for (int i = many / 2; i < many; i++) children[i] = fork_taker(key, 20);
    assert_int_equal(rail_fd_giver_serve(g, memory, many, seconds(20), NULL), RAIL_OK);
    rail_fd_giver_close(g);
    for (int i = 0; i < many; i++) assert_int_equal(exit_code(children[i]), 0);
    assert_int_equal(first_word(), many);
}

static atomic_int taken;
static void *take_in_thread(void *unused)
{
    (void)unused;
    int fd;
    if (rail_fd_take(key, seconds(20), NULL, &fd) == RAIL_OK) {
        taken++;
        close(fd);
    }
    return NULL;
}

static void threads_of_the_giving_process_can_take_too(void **state)
{
    (void)state;
    enum { THREADS = 20 };
    struct fd_giver *g;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, take_in_thread, NULL), 0);
    assert_int_equal(rail_fd_giver_open(key, &g), RAIL_OK);
    assert_int_equal(rail_fd_giver_serve(g, memory, THREADS, seconds(20), NULL), RAIL_OK);
    rail_fd_giver_close(g);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(taken, THREADS);
}

static void a_wrong_key_gets_nothing(void **state)
{
    (void)state;
    struct fd_giver *g;
    uint8_t other[32];
    memcpy(other, key, 32);
    other[31] ^= 1;
    assert_int_equal(rail_fd_giver_open(key, &g), RAIL_OK);
    pid_t child = fork_taker(other, 0.3);
    assert_int_equal(rail_fd_giver_serve(g, memory, 1, seconds(0.2), NULL), RAIL_E_TIMEOUT);
    assert_non_null(strstr(rail_last_error(), "0 of 1"));
    assert_int_equal(exit_code(child), 1);
    rail_fd_giver_close(g);
}

static void two_givers_cannot_share_a_key(void **state)
{
    (void)state;
    struct fd_giver *g, *h = NULL;
    assert_int_equal(rail_fd_giver_open(key, &g), RAIL_OK);
    assert_int_equal(rail_fd_giver_open(key, &h), RAIL_E_SYSTEM);
    assert_null(h);
    rail_fd_giver_close(g);
    assert_int_equal(rail_fd_giver_open(key, &h), RAIL_OK); /* the name is free again at once */
    rail_fd_giver_close(h);
}

static void a_taker_without_giver_gives_up_at_its_deadline(void **state)
{
    (void)state;
    int fd = -7;
    uint64_t begun_ns = rail_now_ns();
    assert_int_equal(rail_fd_take(key, seconds(0.1), NULL, &fd), RAIL_E_TIMEOUT);
    assert_in_range(rail_now_ns() - begun_ns, 100 * RAIL_NS_PER_MS, 5000 * RAIL_NS_PER_MS);
    assert_int_equal(fd, -7);
    assert_int_equal(rail_fd_take(key, seconds(0), NULL, &fd), RAIL_E_TIMEOUT);
}

static void a_taker_whose_giver_does_not_serve_gives_up_too(void **state)
{
    (void)state;
    struct fd_giver *g;
    int fd;
    assert_int_equal(rail_fd_giver_open(key, &g), RAIL_OK);
    assert_int_equal(rail_fd_take(key, seconds(0.1), NULL, &fd), RAIL_E_TIMEOUT);
    rail_fd_giver_close(g);
}

static _Atomic uint32_t stop;
static void *stop_soon(void *unused)
{
    (void)unused;
    usleep(30000);
    atomic_store(&stop, 1);
    return NULL;
}

/* Every wait here would last for ever; the limit is generous for a loaded machine. */
static void the_stop_flag_ends_every_wait(void **state)
{
    (void)state;
    struct fd_giver *g;
    for (int which = 0; which < 3; which++) {
        int fd;
        pthread_t thread;
        enum rail_result result;
        atomic_store(&stop, 0);
        if (which > 0) assert_int_equal(rail_fd_giver_open(key, &g), RAIL_OK);
        assert_int_equal(pthread_create(&thread, NULL, stop_soon, NULL), 0);
        uint64_t begun_ns = rail_now_ns();
        if (which < 2) /* nobody there; there but not serving */
            result = rail_fd_take(key, rail_deadline_never(), &stop, &fd);
        else
            result = rail_fd_giver_serve(g, memory, 1, rail_deadline_never(), &stop);
        assert_int_equal(result, RAIL_E_ABORTED);
        assert_in_range(rail_now_ns() - begun_ns, 0, 2 * RAIL_NS_PER_S);
        pthread_join(thread, NULL);
        if (which > 0) rail_fd_giver_close(g);
    }
}

/* The giver's abstract name, as /proc/net/unix shows it ("@..."): the one listening socket among our descriptors. */
static void find_name(char out[108])
{
    out[0] = 0;
    for (int fd = 3; fd < 256 && !out[0]; fd++) {
        struct sockaddr_un a = {0};
        socklen_t bytes = sizeof a;
        int listening = 0;
        socklen_t int_bytes = sizeof listening;
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &int_bytes) != 0 || !listening) continue;
        if (getsockname(fd, (struct sockaddr *)&a, &bytes) != 0 || a.sun_family != AF_UNIX || a.sun_path[0]) continue;
        int n = (int)(bytes - offsetof(struct sockaddr_un, sun_path)) - 1;
        snprintf(out, 108, "@%.*s", n, a.sun_path + 1);
    }
    if (out[0] != '@') abort(); /* also called in children, where cmocka's asserts are of no use */
}

static void the_key_does_not_show_in_the_name(void **state)
{
    (void)state;
    struct fd_giver *g;
    char name[108], hex[65];
    assert_int_equal(rail_fd_giver_open(key, &g), RAIL_OK);
    find_name(name);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", key[i]);
    for (int i = 0; i + 8 <= 64; i++) {
        char piece[9];
        snprintf(piece, sizeof piece, "%.8s", hex + i);
        assert_null(strstr(name, piece));
    }
    rail_fd_giver_close(g);
}

/* Connects to the giver knowing the name only. */
static int stranger(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = strlen(name);
    memcpy(a.sun_path + 1, name + 1, n - 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)), 0);
    return fd;
}

static void strangers_who_know_only_the_name_disturb_nobody(void **state)
{
    (void)state;
    enum { SILENT = 80 }; /* more than the giver keeps waiting */
    struct fd_giver *g;
    char name[108];
    int fds[SILENT];
    assert_int_equal(rail_fd_giver_open(key, &g), RAIL_OK);
    find_name(name);
    for (int i = 0; i < SILENT; i++) fds[i] = stranger(name);
    assert_int_equal(send(fds[0], "wrong", 5, MSG_NOSIGNAL), 5);
    assert_int_equal(send(fds[1], "0123456789abcdef", 16, MSG_NOSIGNAL), 16);
    assert_int_equal(send(fds[2], "0123456789abcdefg", 17, MSG_NOSIGNAL), 17);
    close(fds[3]);
    pid_t child = fork_taker(key, 10);
    assert_int_equal(rail_fd_giver_serve(g, memory, 1, seconds(10), NULL), RAIL_OK);
    assert_int_equal(exit_code(child), 0);
    for (int i = 0; i < 3; i++) { /* refused: end of file and no descriptor */
        char byte;
        union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
        struct iovec io = {&byte, 1};
        struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
        assert_true(recvmsg(fds[i], &m, 0) <= 0);
    }
    for (int i = 0; i < SILENT; i++)
        if (i != 3) close(fds[i]);
    rail_fd_giver_close(g);
}

static void another_user_is_refused(void **state)
{
    (void)state;
    if (geteuid() != 0) skip(); /* only root can become somebody else */
    struct fd_giver *g;
    assert_int_equal(rail_fd_giver_open(key, &g), RAIL_OK);
    pid_t child = fork();
    if (child == 0) {
        int fd;
        if (setuid(65534) != 0) _exit(9);
        _exit(rail_fd_take(key, seconds(5), NULL, &fd) == RAIL_E_SYSTEM && strstr(rail_last_error(), "user id") ? 0 : 1);
    }
    assert_int_equal(rail_fd_giver_serve(g, memory, 1, seconds(0.5), NULL), RAIL_E_TIMEOUT);
    assert_int_equal(exit_code(child), 0);
    /* And a connection that comes from another user is not served even with the right token: the giver looks at the
     * connection before it reads. */
    child = fork();
    if (child == 0) {
        char name[108], byte;
        if (setuid(65534) != 0) _exit(9);
        find_name(name);
        int fd = stranger(name);
        _exit(recv(fd, &byte, 1, 0) <= 0 ? 0 : 1);
    }
    assert_int_equal(rail_fd_giver_serve(g, memory, 1, seconds(0.5), NULL), RAIL_E_TIMEOUT);
    assert_int_equal(exit_code(child), 0);
    rail_fd_giver_close(g);
}

static void a_taker_killed_in_the_middle_leaves_its_place_to_another(void **state)
{
    (void)state;
    struct fd_giver *g;
    char name[108];
    assert_int_equal(rail_fd_giver_open(key, &g), RAIL_OK);
    find_name(name);
    close(stranger(name)); /* connected, never showed its token */
    pid_t child = fork_taker(key, 10);
    assert_int_equal(rail_fd_giver_serve(g, memory, 1, seconds(10), NULL), RAIL_OK);
    assert_int_equal(exit_code(child), 0);
    rail_fd_giver_close(g);
}

static int each_setup(void **state)
{
    (void)state;
    descriptors_before = open_descriptors();
    rail_random(key, sizeof key);
    taken = 0;
    return rail_memfd_create("passed", BYTES, &memory) == RAIL_OK ? 0 : -1;
}

static int each_teardown(void **state)
{
    (void)state;
    close(memory);
    if (open_descriptors() == descriptors_before) return 0;
    print_error("descriptors leaked: %d before, %d after\n", descriptors_before, open_descriptors());
    return -1;
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, each_setup, each_teardown)
    const struct CMUnitTest tests[] = {
        CASE(nobody_to_serve_is_done_at_once),
        CASE(hundreds_of_processes_get_the_same_memory),
        CASE(threads_of_the_giving_process_can_take_too),
        CASE(a_wrong_key_gets_nothing),
        CASE(two_givers_cannot_share_a_key),
        CASE(a_taker_without_giver_gives_up_at_its_deadline),
        CASE(a_taker_whose_giver_does_not_serve_gives_up_too),
        CASE(the_stop_flag_ends_every_wait),
        CASE(the_key_does_not_show_in_the_name),
        CASE(strangers_who_know_only_the_name_disturb_nobody),
        CASE(another_user_is_refused),
        CASE(a_taker_killed_in_the_middle_leaves_its_place_to_another),
    };
    alarm(120); /* a stranger that is not refused would wait for ever */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
