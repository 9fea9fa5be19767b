/* hwloc.h - libhwloc, loaded at run time: the one door to it. */
#ifndef RAIL_FOREIGN_HWLOC_H
#define RAIL_FOREIGN_HWLOC_H

#if defined(__has_include)
#if __has_include(<hwloc.h>) && __has_include(<hwloc/autogen/config.h>)
#define RAIL_HAVE_HWLOC 1
#include <hwloc.h>

/* Every function of hwloc's that we call, by its name without the prefix. */
struct hwloc_functions {
    int (*topology_init)(hwloc_topology_t *);
    int (*topology_load)(hwloc_topology_t);
    void (*topology_destroy)(hwloc_topology_t);
    int (*topology_set_xml)(hwloc_topology_t, const char *);
    int (*topology_set_synthetic)(hwloc_topology_t, const char *);
    int (*topology_set_io_types_filter)(hwloc_topology_t, enum hwloc_type_filter_e);
    hwloc_obj_t (*get_obj_by_depth)(hwloc_topology_t, int, unsigned);
    int (*bitmap_first)(hwloc_const_bitmap_t);
    int (*bitmap_snprintf)(char *, size_t, hwloc_const_bitmap_t);
};
#endif
#endif

/* NULL when libhwloc.so.15 is not here, or hwloc's header was not there when this was built; *why_out then says which.
 * Any thread; loads once and stays. */
const struct hwloc_functions *hwloc_functions(const char **why_out);

#endif
