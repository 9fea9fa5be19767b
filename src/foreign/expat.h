/* expat.h - reading XML: elements and their attributes, with the line each begins in. The one door to libexpat, which
 * is linked statically and hidden.
 *
 * Bounds, for files that anybody may have written: XML_MOST_BYTES of file, XML_MOST_DEPTH elements inside one another,
 * no entities of the file's own. What exceeds them, or is no XML, fails with file, line and remedy. */
#ifndef RAIL_FOREIGN_EXPAT_H
#define RAIL_FOREIGN_EXPAT_H

#include <stddef.h>
#include <stdint.h>

#include "base/result.h"

enum { XML_MOST_BYTES = 16 << 20, XML_MOST_DEPTH = 64 };

/* `attributes`: name, value, name, value, ..., NULL; valid during the call. Anything but RAIL_OK ends the reading and
 * is returned. */
struct xml_handler {
    enum rail_result (*begin)(void *context, const char *name, const char **attributes, uint32_t line);
    enum rail_result (*end)(void *context, const char *name);
    void *context;
};

/* `file` is the name for messages. */
enum rail_result xml_read_text(const char *text, size_t bytes, const char *file, const struct xml_handler *handler);
enum rail_result xml_read_file(const char *path, const struct xml_handler *handler);

#endif
