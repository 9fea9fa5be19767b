/* net_flows.h - messages that know their own content, sent and checked on any number of links by one thread per side. */
#ifndef TEST_NET_FLOWS_H
#define TEST_NET_FLOWS_H

#include "transport/net_fixture.h"

struct flow {
    struct link *link;
    uint64_t name; /* same on both ends */
    bool sender;
    uint64_t done;
};

struct side {
    struct net *net;
    struct flow *flows;
    int n_flows;
    uint64_t messages;
    uint32_t slow_us; /* before each release */
    const char *wrong;
};

static inline const char *flow_step(struct side *s, struct flow *f, bool *moved)
{
    size_t slot_bytes = f->link->slot_bytes;
    if (f->sender) {
        void *slot;
        enum rail_result r = f->link->ops->acquire(f->link, &slot);
        if (r == RAIL_NOT_YET) return NULL;
        if (r != RAIL_OK) return "acquire failed";
        if ((uintptr_t)slot % 64 != 0) return "a slot is not aligned";
        size_t bytes = message_bytes(f->name, f->done, slot_bytes);
        uint64_t seed = mix(f->name << 32 | f->done);
        pattern_fill(slot, bytes, seed);
        f->link->ops->publish(f->link, bytes, ~seed);
    } else {
        const void *slot;
        size_t bytes;
        uint64_t signature;
        enum rail_result r = f->link->ops->wait(f->link, &slot, &bytes, &signature);
        if (r == RAIL_NOT_YET) return NULL;
        if (r != RAIL_OK) return "wait failed";
        uint64_t seed = mix(f->name << 32 | f->done);
        if (bytes != message_bytes(f->name, f->done, slot_bytes)) return "a slot has the wrong size";
        if (signature != ~seed) return "a slot has the wrong signature";
        if (pattern_differs(slot, bytes, seed)) return "a slot has the wrong content";
        if (s->slow_us) usleep(s->slow_us);
        f->link->ops->release(f->link);
    }
    f->done++;
    *moved = true;
    return NULL;
}

/* Enough for every sequence number and slot to come round; ThreadSanitizer needs twenty times the time for each. */
static inline uint64_t messages_of(uint64_t messages)
{
#if defined(__SANITIZE_THREAD__)
    return messages / 4;
#else
    return messages;
#endif
}

static inline void *side_run(void *argument)
{
    struct side *s = argument;
    struct rail_deadline deadline = rail_deadline_in_ns(200 * RAIL_NS_PER_S);
    for (bool busy = true; busy && !s->wrong;) {
        bool moved = false;
        busy = false;
        for (int i = 0; i < s->n_flows && !s->wrong; i++) {
            struct flow *f = &s->flows[i];
            if (f->done < s->messages) s->wrong = flow_step(s, f, &moved);
            busy |= f->done < s->messages || (f->sender && !f->link->ops->drained(f->link));
        }
        moved |= net_progress_on(s->net);
        if (!moved) sched_yield();
        if (rail_deadline_passed(deadline)) s->wrong = "not done after 200 s";
    }
    return NULL;
}

#endif
