/* flow_label.h - by which route of the fabric a lane over RDMA goes: its flow label, hence RoCE v2's UDP source port.
 *
 * A pure function of the connecter's HELLO, so that both ends know it, and the lanes of a set are told apart by it:
 *
 *   14 bits = start + (lane + 1024 x turn) x step   modulo 2^14      step odd: distinct for 1024 lanes x 16 turns
 *
 * Where it starts depends on the two processes and the set, as the processes of two hosts share their NICs' addresses.
 * `step` is 2^14 by the golden ratio: neighbours lie far apart, and differ in every bit.
 *
 * Linux' drivers make 0xc000 | (low 14 bits ^ high 6 bits) of a label that is not 0 (rdma_flow_label_to_udp_sport).
 * Therefore bit 14 is set in all of ours; the ports are as distinct as the labels. Soft-RoCE does so, too, and
 * tests/rdma_vm sees them on its switch. */
#ifndef RAIL_LANE_FLOW_LABEL_H
#define RAIL_LANE_FLOW_LABEL_H

#include <stdint.h>

#include "transport/lane/frame.h"

enum { FLOW_LABEL_KEYS = 1 << 14, FLOW_LABEL_STEP = 10125, FLOW_LABEL_LANES = 1024, FLOW_LABEL_TURNS = 16 };

static inline uint64_t flow_label_mix(uint64_t hash, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3u; /* FNV-1a */
    return hash;
}

/* `hello`: the connecter's, of this lane, as the machine has it. 20 bits. */
static inline uint32_t flow_label(const struct frame_hello *hello)
{
    uint64_t words[2] = {htole64(hello->session), htole64(hello->turn / FLOW_LABEL_TURNS)};
    uint64_t hash = flow_label_mix(0xcbf29ce484222325u, hello->from, sizeof hello->from);
    hash = flow_label_mix(flow_label_mix(hash, hello->to, sizeof hello->to), words, sizeof words);
    uint32_t place = hello->lane + FLOW_LABEL_LANES * (uint32_t)(hello->turn % FLOW_LABEL_TURNS);
    return ((uint32_t)(hash >> 32) + place * FLOW_LABEL_STEP) % FLOW_LABEL_KEYS | FLOW_LABEL_KEYS;
}

/* Of RoCE v2, where the driver takes it from the label. */
static inline uint16_t flow_label_port(uint32_t label)
{
    return (uint16_t)(0xc000 | ((label & 0x3fff) ^ (label >> 14 & 0x3f)));
}

#endif
