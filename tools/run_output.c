/* run_output.c - lines from many ranks into one stream: whole lines only, with their rank in front when it matters. */
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run.h"

enum {
    READ_BYTES = 65536,     /* a pipe's size */
    WRITE_BYTES = 4096,     /* PIPE_BUF: what a pipe that polls writable takes without blocking */
    LOOK_MS = 100,          /* while our reader does not read, deadlines are looked at this often */
    LINE_MOST = 1 << 20,    /* a longer line is cut: memory is bounded by ranks x 1 MiB */
};

/* All of it, or nothing more once the reader is gone, or does not read when everything has been killed. */
static void write_all(struct run_output *output, int to, const char *data, size_t bytes)
{
    while (bytes && !output->broken) {
        struct pollfd wait[2] = {{to, POLLOUT, 0}, {output->interrupt_fd, POLLIN, 0}};
        int ready = poll(wait, 2, LOOK_MS);
        if (ready < 0 && errno != EINTR) break;
        if ((ready <= 0 || (wait[1].revents & POLLIN)) && output->interrupted(output->owner)) output->broken = true;
        if (ready <= 0) continue;
        if (!(wait[0].revents & (POLLOUT | POLLERR | POLLHUP | POLLNVAL))) continue;
        ssize_t n = write(to, data, bytes < WRITE_BYTES ? bytes : WRITE_BYTES);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n < 0) output->broken = true;
        else data += n, bytes -= (size_t)n;
    }
}

/* An agent's lines begin with "[rank] "; gives the rank and steps over it, -1 for the agent's own words. */
static int rank_of_line(const char **line, size_t *bytes)
{
    size_t i = 1;
    int rank = 0;
    if (*bytes < 4 || **line != '[' || !isdigit((unsigned char)(*line)[1])) return -1;
    for (; i < *bytes && isdigit((unsigned char)(*line)[i]) && i < 8; i++) rank = rank * 10 + (*line)[i] - '0';
    if (i + 2 > *bytes || (*line)[i] != ']' || (*line)[i + 1] != ' ') return -1;
    *line += i + 2;
    *bytes -= i + 2;
    return rank;
}

/* Appends one line, with its end, to the batch. */
static void append_line(struct run_output *output, const struct run_stream *stream, const char *line, size_t bytes, FILE *batch)
{
    int rank = stream->rank >= 0 ? stream->rank : rank_of_line(&line, &bytes);
    if (rank >= 0) {
        if (output->only_writer < 0) output->only_writer = rank;
        if (output->only_writer != rank) output->several = true;
        bool prefix = output->prefix == RUN_PREFIX_ALWAYS || (output->prefix == RUN_PREFIX_SEVERAL && output->several);
        if (prefix) fprintf(batch, "[%d] ", rank);
    }
    fwrite(line, 1, bytes, batch);
    if (!bytes || line[bytes - 1] != '\n') fputc('\n', batch);
}

/* Passes on all complete lines of the stream (with `all`, also the incomplete one) and keeps the rest. */
static void pass_on(struct run_output *output, struct run_stream *stream, bool all)
{
    char *text = NULL;
    size_t length = 0, from = 0;
    if (!stream->bytes) return;
    FILE *batch = open_memstream(&text, &length);
    if (!batch) return;
    while (from < stream->bytes) {
        const char *line = stream->line + from, *end = memchr(line, '\n', stream->bytes - from);
        size_t bytes = end ? (size_t)(end - line) + 1 : stream->bytes - from;
        if (!end && !all && bytes < LINE_MOST) break;
        append_line(output, stream, line, bytes, batch);
        from += bytes;
    }
    memmove(stream->line, stream->line + from, stream->bytes - from);
    stream->bytes -= from;
    fclose(batch);
    write_all(output, stream->to, text, length);
    free(text);
}

bool run_stream_read(struct run_output *output, struct run_stream *stream)
{
    if (stream->room - stream->bytes < READ_BYTES) {
        char *more = realloc(stream->line, stream->bytes + 2 * READ_BYTES);
        if (!more) return false;
        stream->line = more;
        stream->room = stream->bytes + 2 * READ_BYTES;
    }
    ssize_t n = read(stream->fd, stream->line + stream->bytes, READ_BYTES);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (n <= 0) return false;
    stream->bytes += (size_t)n;
    pass_on(output, stream, false);
    return true;
}

void run_stream_close(struct run_output *output, struct run_stream *stream)
{
    if (stream->fd < 0) return;
    pass_on(output, stream, true);
    close(stream->fd);
    stream->fd = -1;
    free(stream->line);
    stream->line = NULL;
    stream->bytes = stream->room = 0;
}
