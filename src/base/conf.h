/* conf.h - files of NAME=VALUE lines (/etc/nccl.conf and its like). */
#ifndef RAIL_BASE_CONF_H
#define RAIL_BASE_CONF_H

struct rail_conf;

/* The file's lines, or NULL when it is not there, cannot be read, or is not a regular file. Blanks around names and
 * values, empty lines, CR LF and a missing last line end are fine; lines that start with # and lines without = are
 * skipped, and so is a line longer than 4095 bytes. At most 1 MiB is read. */
struct rail_conf *rail_conf_read(const char *path);
void rail_conf_free(struct rail_conf *conf);

/* The value of the last line with that name, or NULL; lives as long as `conf`. Both take NULL. */
const char *rail_conf_find(const struct rail_conf *conf, const char *name);
const char *rail_conf_path(const struct rail_conf *conf);

#endif
