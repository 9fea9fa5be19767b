/* number_facts.h - bits of float types that the arithmetic of CPUs and GPUs shares. Freestanding.
 *
 * FN: what each side's functions are (static inline; for a GPU; for one instruction set). */
#ifndef RAIL_DEVICE_NUMBER_FACTS_H
#define RAIL_DEVICE_NUMBER_FACTS_H

/* number_largest: the largest magnitude that is a number: infinity, or 448 in e4m3, which has none. Above it are NaNs.
 * number_nan: the canonical NaN, positive and quiet. Of float types only. */
#define NUMBER_FACTS(FN)                                                                                               \
    FN int64_t number_largest(uint32_t type)                                                                           \
    {                                                                                                                  \
        switch (type) {                                                                                                \
        case RAIL_F16: return 0x7c00;                                                                                  \
        case RAIL_BF16: return 0x7f80;                                                                                 \
        case RAIL_F8E4M3: return 0x7e;                                                                                 \
        case RAIL_F8E5M2: return 0x7c;                                                                                 \
        case RAIL_F32: return 0x7f800000;                                                                              \
        default: return 0x7ff0000000000000;                                                                            \
        }                                                                                                              \
    }                                                                                                                  \
    FN int64_t number_nan(uint32_t type)                                                                               \
    {                                                                                                                  \
        switch (type) {                                                                                                \
        case RAIL_F16: return 0x7e00;                                                                                  \
        case RAIL_BF16: return 0x7fc0;                                                                                 \
        case RAIL_F8E4M3: return 0x7f;                                                                                 \
        case RAIL_F8E5M2: return 0x7e;                                                                                 \
        case RAIL_F32: return 0x7fc00000;                                                                              \
        default: return 0x7ff8000000000000;                                                                            \
        }                                                                                                              \
    }

#endif
