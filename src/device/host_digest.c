/* host_digest.c - 64 bits of any bytes, at memory speed.
 *
 * Eight lanes take a word each of every 64 bytes: lane := rotate((lane ^ word) * odd). Each of the three steps can be
 * undone, so a changed word always changes its lane, and a lane that differs stays different whatever follows: one
 * damaged word never escapes. Then the lanes, the tail and the length are folded the same way. Not for adversaries. */
#include "device/host.h"

#include <string.h>

enum { LANES = 8 };

static inline uint64_t turn(uint64_t lane, uint64_t word)
{
    lane = (lane ^ word) * 0xd6e8feb86659fd93u;
    return lane << 31 | lane >> 33;
}

uint64_t rail_digest(const void *data, size_t bytes)
{
    const unsigned char *at = data, *end = at + bytes;
    uint64_t lane[LANES], word[LANES], digest = 0x9e3779b97f4a7c15u + bytes;
    for (int k = 0; k < LANES; k++) lane[k] = digest * (uint64_t)(2 * k + 1);
    for (; end - at >= (ptrdiff_t)sizeof word; at += sizeof word) {
        memcpy(word, at, sizeof word);
        for (int k = 0; k < LANES; k++) lane[k] = turn(lane[k], word[k]);
    }
    memset(word, 0, sizeof word);
    memcpy(word, at, (size_t)(end - at)); /* the length tells a short tail from zeros */
    for (int k = 0; k < LANES; k++) digest = turn(digest, turn(lane[k], word[k]));
    return digest ^ digest >> 32;
}
