/* expat.c - reading XML with libexpat, within bounds. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <expat.h>

#include "base/memory.h"
#include "foreign/expat.h"

/* Debian's libexpat.a salts its tables by arc4random_buf, which came with glibc 2.36: with one of our own the library
 * loads on older ones, too. */
void arc4random_buf(void *out, size_t bytes);
__attribute__((visibility("hidden"))) void arc4random_buf(void *out, size_t bytes) { rail_random(out, bytes); }

struct reading {
    XML_Parser parser;
    const struct xml_handler *handler;
    const char *file;
    enum rail_result result;
    int depth;
};

static uint32_t line_of(const struct reading *r) { return (uint32_t)XML_GetCurrentLineNumber(r->parser); }

static void stop(struct reading *r, enum rail_result result)
{
    if (r->result == RAIL_OK) r->result = result;
    XML_StopParser(r->parser, XML_FALSE);
}

static void XMLCALL on_begin(void *context, const XML_Char *name, const XML_Char **attributes)
{
    struct reading *r = context;
    if (r->result != RAIL_OK) return;
    if (++r->depth > XML_MOST_DEPTH)
        return stop(r, rail_fail(RAIL_E_ARGUMENT,
                                 "%s:%u: elements stand more than %d deep inside one another; no machine is "
                                 "built like that, write the file anew",
                                 r->file, line_of(r), XML_MOST_DEPTH));
    enum rail_result result = r->handler->begin(r->handler->context, name, attributes, line_of(r));
    if (result != RAIL_OK) stop(r, result);
}

static void XMLCALL on_end(void *context, const XML_Char *name)
{
    struct reading *r = context;
    if (r->result != RAIL_OK) return;
    r->depth--;
    enum rail_result result = r->handler->end(r->handler->context, name);
    if (result != RAIL_OK) stop(r, result);
}

static void XMLCALL on_entity(void *context, const XML_Char *name, int is_parameter, const XML_Char *value, int bytes,
                              const XML_Char *base, const XML_Char *system, const XML_Char *public,
                              const XML_Char *notation)
{
    struct reading *r = context;
    (void)is_parameter, (void)value, (void)bytes, (void)base, (void)system, (void)public, (void)notation;
    stop(r, rail_fail(RAIL_E_ARGUMENT,
                      "%s:%u: the file defines an entity \"%.40s\"; descriptions of machines need none, "
                      "remove its <!ENTITY> lines",
                      r->file, line_of(r), name));
}

enum rail_result xml_read_text(const char *text, size_t bytes, const char *file, const struct xml_handler *handler)
{
    struct reading r = {.handler = handler, .file = file};
    if (bytes > XML_MOST_BYTES)
        return rail_fail(RAIL_E_ARGUMENT, "%s: %zu bytes; a machine's description has at most %d", file, bytes,
                         XML_MOST_BYTES);
    r.parser = XML_ParserCreate(NULL);
    if (!r.parser) return rail_fail(RAIL_E_SYSTEM, "%s: out of memory for reading XML", file);
    XML_SetUserData(r.parser, &r);
    XML_SetElementHandler(r.parser, on_begin, on_end);
    XML_SetEntityDeclHandler(r.parser, on_entity);
    enum XML_Status status = XML_Parse(r.parser, text, (int)bytes, 1);
    if (r.result == RAIL_OK && status != XML_STATUS_OK) {
        enum XML_Error error = XML_GetErrorCode(r.parser);
        const char *remedy = error == XML_ERROR_NO_ELEMENTS || error == XML_ERROR_UNCLOSED_TOKEN
                                 ? "the file is empty or cut off; copy it again"
                                 : "the file is damaged or no XML; `xmllint` shows the place";
        r.result = rail_fail(RAIL_E_ARGUMENT, "%s:%u: %s; %s", file, line_of(&r), XML_ErrorString(error), remedy);
    }
    XML_ParserFree(r.parser);
    return r.result;
}

static enum rail_result load(const char *path, char **out, size_t *bytes_out)
{
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return rail_fail(RAIL_E_ARGUMENT, "%s: %s", path, strerror(errno));
    size_t room = 65536, n = 0;
    char *text = NULL;
    enum rail_result result = RAIL_OK;
    if (fstat(fd, &about) == 0 && S_ISDIR(about.st_mode))
        result = rail_fail(RAIL_E_ARGUMENT, "%s: is a directory, not a description of a machine", path);
    while (result == RAIL_OK) {
        char *bigger = realloc(text, room);
        if (!bigger) { result = rail_fail(RAIL_E_SYSTEM, "%s: out of memory for the file", path); break; }
        text = bigger;
        ssize_t got = read(fd, text + n, room - n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) result = rail_fail(RAIL_E_ARGUMENT, "%s: cannot be read: %s", path, strerror(errno));
        if (got <= 0) break;
        n += (size_t)got;
        if (n > XML_MOST_BYTES)
            result = rail_fail(RAIL_E_ARGUMENT, "%s: more than %d bytes; a machine's description is shorter", path,
                               XML_MOST_BYTES);
        if (n == room) room *= 2;
    }
    close(fd);
    if (result != RAIL_OK) return free(text), result;
    *out = text;
    *bytes_out = n;
    return RAIL_OK;
}

enum rail_result xml_read_file(const char *path, const struct xml_handler *handler)
{
    char *text = NULL;
    size_t bytes = 0;
    RAIL_TRY(load(path, &text, &bytes));
    enum rail_result result = xml_read_text(text, bytes, path, handler);
    free(text);
    return result;
}
