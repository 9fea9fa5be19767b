/* signature.c - signatures in words. */
#include "engine/signature.h"

#include <stdio.h>

#include "plan/collective.h"

void signature_describe_elements(uint64_t signature, char *out, size_t bytes)
{
    static const char *const types[16] = {"int8",    "uint8",   "int32",   "uint32",   "int64",      "uint64",
                                          "float16", "float32", "float64", "bfloat16", "float8e4m3", "float8e5m2"};
    const char *type = types[signature >> 56 & 15];
    snprintf(out, bytes, "%llu %s", (unsigned long long)(signature & SIGNATURE_COUNT_MAX), type ? type : "unknown");
}

void signature_describe(uint64_t signature, char *out, size_t bytes)
{
    static const char *const ops[8] = {"sum", "prod", "max", "min", "avg", "premulsum"};
    uint32_t number = (uint32_t)(signature >> 60);
    const char *name = number ? collective_name(number - 1) : NULL;
    struct collective_kind kind = {0};
    const char *op = ops[signature >> 53 & 7];
    if (name) kind = collective_kind(number - 1);
    char elements[40], combined[32] = "", root[32] = "";
    signature_describe_elements(signature, elements, sizeof elements);
    if (kind.reduces) snprintf(combined, sizeof combined, ", %s", op ? op : "unknown");
    if (kind.rooted) snprintf(root, sizeof root, ", root %u", (unsigned)(signature >> 40 & 8191));
    snprintf(out, bytes, "%s of %s%s%s", name ? name : "unknown call", elements, combined, root);
}
