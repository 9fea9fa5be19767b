/* gang.h - ranks of one communicator as threads, for tests of the bootstrap. */
#ifndef TESTS_BOOTSTRAP_GANG_H
#define TESTS_BOOTSTRAP_GANG_H

#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/params.h"
#include "base/result.h"
#include "bootstrap/bootstrap.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif

/* ThreadSanitizer does not allow threads in the child of a process that has some. */
static inline void skip_where_forking_is_not_allowed(void)
{
#ifdef __SANITIZE_THREAD__
    print_message("ThreadSanitizer allows no threads in a forked child\n");
    skip();
#endif
}

struct member {
    /* in */
    struct bootstrap_config config;
    void (*work)(struct member *); /* after a successful open; may be NULL */
    void *argument;
    /* out */
    enum rail_result result; /* of open, then of work */
    char text[512];
    double seconds;
    struct bootstrap *bootstrap;
    bool keep; /* leave it open */
    pthread_t thread;
};

static inline void *member_main(void *argument)
{
    struct member *m = argument;
    uint64_t start = rail_now_ns();
    m->result = bootstrap_open(&m->config, &m->bootstrap);
    if (m->result == RAIL_OK && m->work) m->work(m);
    snprintf(m->text, sizeof m->text, "%s", m->result == RAIL_OK ? "" : m->text[0] ? m->text : rail_last_error());
    m->seconds = (double)(rail_now_ns() - start) / 1e9;
    if (m->bootstrap && !m->keep) {
        bootstrap_close(m->bootstrap);
        m->bootstrap = NULL;
    }
    return NULL;
}

static inline void member_set(struct member *m, const uint8_t *id, uint32_t rank, uint32_t n_ranks, double seconds)
{
    memset(m, 0, sizeof *m);
    m->config = (struct bootstrap_config){
        .id = id, .rank = rank, .n_ranks = n_ranks, .deadline = rail_deadline_in_ns((uint64_t)(seconds * 1e9)),
    };
}

static inline void gang_start(struct member *members, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (pthread_create(&members[i].thread, NULL, member_main, &members[i]) != 0) abort();
}

static inline void gang_join(struct member *members, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) pthread_join(members[i].thread, NULL);
}

static inline void new_id(uint8_t id[BOOTSTRAP_ID_BYTES])
{
    if (bootstrap_root_create(id) != RAIL_OK) fail_msg("%s", rail_last_error());
}

static inline int count_descriptors(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

/* The root closes by itself a moment after the last rank has joined. */
static inline void expect_descriptors(int want)
{
    int have = 0;
    for (int i = 0; i < 300 && (have = count_descriptors()) > want; i++) usleep(10000);
    if (have > want) fail_msg("%d descriptors are open, %d were before", have, want);
}

/* Makes the descriptors exist that stay for the life of the process (the service thread's, the reception's), so that
 * they do not count as leaks. */
static inline int warm_up(void **state)
{
    (void)state;
    uint8_t id[BOOTSTRAP_ID_BYTES];
    struct member one;
    struct bootstrap_place place;
    if (bootstrap_root_create(id) != RAIL_OK || bootstrap_place_here(&place) != RAIL_OK) return -1;
    member_set(&one, id, 0, 1, 10);
    gang_start(&one, 1);
    gang_join(&one, 1);
    usleep(50000);
    return one.result == RAIL_OK ? 0 : -1;
}

#endif
