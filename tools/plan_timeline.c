/* plan_timeline.c - `railccl plan --fail`: one call while parts die and come back, as text, JSON, or drawn: what a host
 * sends by each of its rails over time, one on the other, with a number where something happens. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "plan_svg.h"
#include "simulate/timeline.h"

enum { WIDTH = 1200, LEFT = 90, RIGHT = 1080, TOP = 110, BOTTOM = 430, LINE = 22, MARKS = 12 };

static const char *shown(const struct plan_view *v, const struct timeline *t, char out[NETWORK_NAME_BYTES + 16])
{
    char name[NETWORK_NAME_BYTES];
    snprintf(out, NETWORK_NAME_BYTES + 16, "%s",
             t->of_host ? network_host_name(&v->network, t->host, name) : "all hosts");
    return out;
}

/* ---- text ---- */

static double sum_of(const struct timeline *t, const struct timeline_stretch *s)
{
    double sum = 0;
    for (uint32_t r = 0; r < t->n_rails; r++) sum += s->rail[r];
    return sum;
}

static void print_text(const struct plan_view *v, const struct timeline *t)
{
    char time[24], end[24], who[NETWORK_NAME_BYTES + 16];
    printf("%12s  %s\n", "at", "what");
    for (uint32_t k = 0; k < t->n_events; k++)
        printf("%12s  %s\n", plan_time_text(t->events[k].ns, time), t->events[k].text);
    printf("\n%12s  %12s  done %%  GB/s of %s, by rail\n", "from", "to", shown(v, t, who));
    for (uint32_t k = 0; k < t->n_stretches; k++) {
        const struct timeline_stretch *s = &t->stretches[k];
        printf("%12s  %12s  %6.2f", plan_time_text(s->from_ns, time), plan_time_text(s->to_ns, end), 100 * s->done_to);
        for (uint32_t r = 0; r < t->n_rails && !s->waits; r++) printf(" %7.4g", s->rail[r]);
        puts(s->waits ? "  waits" : "");
    }
    printf("\n%s instead of ", plan_time_text(t->ns, time));
    printf("%s: %+.2f %%; %llu lanes ended, %llu came back; at most %s went again\n", plan_time_text(t->whole_ns, time),
           100 * (t->ns / t->whole_ns - 1), (unsigned long long)t->counts.ended, (unsigned long long)t->counts.back,
           plan_size_text(t->counts.again_bytes, end));
}

/* ---- JSON ---- */

static void print_json(const struct plan_view *v, const struct timeline *t)
{
    char who[NETWORK_NAME_BYTES + 16];
    printf("{\n  \"collective\": \"%s\", \"bytes\": %llu, \"ns\": %.12g, \"whole_ns\": %.12g, \"lanes_ended\": %llu, "
           "\"lanes_back\": %llu, \"again_bytes_most\": %.12g, \"shown\": ",
           plan_call_name(v->wish), (unsigned long long)v->wish->sizes[0], t->ns, t->whole_ns,
           (unsigned long long)t->counts.ended, (unsigned long long)t->counts.back, t->counts.again_bytes);
    plan_json_text(stdout, shown(v, t, who));
    fputs(",\n  \"events\": [", stdout);
    for (uint32_t k = 0; k < t->n_events; k++) {
        printf("%s\n    {\"ns\": %.12g, \"what\": ", k ? "," : "", t->events[k].ns);
        plan_json_text(stdout, t->events[k].text);
        fputc('}', stdout);
    }
    fputs("\n  ],\n  \"stretches\": [", stdout);
    for (uint32_t k = 0; k < t->n_stretches; k++) {
        const struct timeline_stretch *s = &t->stretches[k];
        printf("%s\n    {\"from_ns\": %.12g, \"to_ns\": %.12g, \"done_from\": %.12g, \"done_to\": %.12g, "
               "\"waits\": %s, \"rail_gbyte_s\": [",
               k ? "," : "", s->from_ns, s->to_ns, s->done_from, s->done_to, s->waits ? "true" : "false");
        for (uint32_t r = 0; r < t->n_rails; r++) printf("%s%.8g", r ? ", " : "", s->rail[r]);
        fputs("]}", stdout);
    }
    fputs("\n  ]\n}\n", stdout);
}

/* ---- the drawing ---- */

struct plot {
    const struct plan_view *view;
    const struct timeline *t;
    FILE *out;
    double span_ns, top; /* of the axes */
};

static double x_of(const struct plot *p, double ns) { return LEFT + ns / p->span_ns * (RIGHT - LEFT); }
static double y_of(const struct plot *p, double rate) { return BOTTOM - rate / p->top * (BOTTOM - TOP); }

/* 1, 2 or 5 times a power of ten: some five of them. */
static double round_step(double most)
{
    double unit = pow(10, floor(log10(most / 4))), n = most / 4 / unit;
    return unit * (n >= 5 ? 5 : n >= 2 ? 2 : 1);
}

static const char *rail_colour(uint32_t rail)
{
    static const char *const colours[] = {"#2563eb", "#059669", "#d97706", "#7c3aed",
                                          "#0891b2", "#be185d", "#65a30d", "#475569"};
    return colours[rail % 8];
}

static void draw_grid(const struct plot *p)
{
    char text[40];
    for (double rate = 0; rate <= p->top * 1.0001; rate += round_step(p->top)) {
        fprintf(p->out, "<path d=\"M%d %.1f H%d\" stroke=\"#e2e8f0\"/>\n", LEFT, y_of(p, rate), RIGHT);
        snprintf(text, sizeof text, "%.4g", rate);
        plan_svg_text(p->out, LEFT - 8, y_of(p, rate) + 4,
                      "font-size=\"12\" text-anchor=\"end\" fill=\"#475569\"", text);
    }
    for (double ns = 0; ns <= p->span_ns * 1.0001; ns += round_step(p->span_ns)) {
        plan_time_text(ns, text);
        plan_svg_text(p->out, x_of(p, ns), BOTTOM + 18, "font-size=\"12\" text-anchor=\"middle\" fill=\"#475569\"",
                      ns > 0 ? text : "0");
    }
    plan_svg_text(p->out, LEFT - 8, TOP - 14, "font-size=\"12\" text-anchor=\"end\" fill=\"#475569\"", "GB/s");
}

static void draw_stretch(const struct plot *p, const struct timeline_stretch *s)
{
    double x = x_of(p, s->from_ns), wide = x_of(p, s->to_ns) - x, base = 0;
    if (s->waits) /* at least a line */
        fprintf(p->out, "<rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" fill=\"#fecaca\"/>\n", x, TOP,
                fmax(wide, 1.5), BOTTOM - TOP);
    for (uint32_t r = 0; r < p->t->n_rails && !s->waits; base += s->rail[r++])
        fprintf(p->out,
                "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\" stroke=\"#fff\" "
                "stroke-width=\"0.5\"/>\n",
                x, y_of(p, base + s->rail[r]), wide, y_of(p, base) - y_of(p, base + s->rail[r]), rail_colour(r));
}

static void draw_rails(const struct plot *p)
{
    char name[24];
    uint32_t shown_rails = p->t->n_rails < 16 ? p->t->n_rails : 16;
    for (uint32_t r = 0; r < shown_rails; r++) {
        double y = BOTTOM - 16 - r * 19.0;
        snprintf(name, sizeof name, "rail %u", r);
        fprintf(p->out, "<rect x=\"%d\" y=\"%.1f\" width=\"14\" height=\"12\" fill=\"%s\"/>\n", RIGHT + 22, y,
                rail_colour(r));
        plan_svg_text(p->out, RIGHT + 42, y + 11, "font-size=\"12\" fill=\"#334155\"", name);
    }
    fprintf(p->out, "<rect x=\"%d\" y=\"%d\" width=\"14\" height=\"12\" fill=\"#fecaca\"/>\n", RIGHT + 22, TOP);
    plan_svg_text(p->out, RIGHT + 42, TOP + 11, "font-size=\"12\" fill=\"#334155\"", "waits");
}

/* Numbers over the plot, moved apart where they are near, and what they are below it. */
static void draw_events(const struct plot *p)
{
    double last = -100;
    for (uint32_t k = 0; k < p->t->n_events && k < MARKS; k++) {
        const struct timeline_event *e = &p->t->events[k];
        double x = x_of(p, e->ns), mark = fmax(x, last + 21), y = BOTTOM + 52 + k * (double)LINE;
        char text[16], time[24];
        snprintf(text, sizeof text, "%u", k + 1);
        fprintf(p->out,
                "<path d=\"M%.2f %d V%d L%.2f %d\" stroke=\"#0f172a\" fill=\"none\" stroke-dasharray=\"4 3\"/>\n"
                "<circle cx=\"%.2f\" cy=\"%d\" r=\"9\" fill=\"#0f172a\"/>\n"
                "<circle cx=\"%d\" cy=\"%.1f\" r=\"9\" fill=\"#0f172a\"/>\n",
                x, BOTTOM, TOP - 6, mark, TOP - 14, mark, TOP - 22, LEFT + 10, y - 4);
        plan_svg_text(p->out, mark, TOP - 18, "font-size=\"11\" text-anchor=\"middle\" fill=\"#fff\"", text);
        plan_svg_text(p->out, LEFT + 10, y, "font-size=\"11\" text-anchor=\"middle\" fill=\"#fff\"", text);
        plan_svg_text(p->out, LEFT + 110, y, "font-size=\"13\" text-anchor=\"end\" fill=\"#475569\"",
                      plan_time_text(e->ns, time));
        plan_svg_text(p->out, LEFT + 124, y, "font-size=\"13\" fill=\"#0f172a\"", e->text);
        last = mark;
    }
}

static int write_svg(const struct plan_view *v, const struct timeline *t, FILE *out)
{
    struct plot p = {.view = v, .t = t, .out = out, .span_ns = t->ns, .top = 1e-9};
    char line[300], size[24], time[24], whole[24], who[NETWORK_NAME_BYTES + 16];
    uint32_t listed = t->n_events < MARKS ? t->n_events : MARKS;
    for (uint32_t k = 0; k < t->n_stretches; k++) p.top = fmax(p.top, sum_of(t, &t->stretches[k]));
    p.top *= 1.02;
    plan_svg_begin(out, WIDTH, BOTTOM + 60 + listed * (double)LINE);
    snprintf(line, sizeof line, "%s of %s while parts fail: %s instead of %s", plan_call_name(v->wish),
             plan_size_text((double)v->wish->sizes[0], size), plan_time_text(t->ns, time),
             plan_time_text(t->whole_ns, whole));
    plan_svg_text(out, 30, 36, "font-size=\"20\" font-weight=\"bold\" fill=\"#0f172a\"", line);
    snprintf(line, sizeof line, "what %s sends by each rail; %u hosts x %u NICs of %.4g Gbit/s, %s", shown(v, t, who),
             v->network.n_hosts, v->network.n_rails, v->wish->network.nic_gbit, network_kind_names[v->network.kind]);
    plan_svg_text(out, 30, 58, "font-size=\"13\" fill=\"#475569\"", line);
    draw_grid(&p);
    for (uint32_t k = 0; k < t->n_stretches; k++) draw_stretch(&p, &t->stretches[k]);
    draw_rails(&p);
    draw_events(&p);
    fputs("</svg>\n", out);
    return ferror(out) != 0;
}

/* ---- all of it ---- */

static int draw_to(const char *path, const struct plan_view *v, const struct timeline *t)
{
    FILE *out = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
    int bad = !out || write_svg(v, t, out) != 0;
    if (out && (out == stdout ? fflush(out) : fclose(out)) != 0) bad = 1;
    if (bad) fprintf(stderr, "railccl plan: %s: cannot be written\n", path);
    return bad ? 2 : 0;
}

int plan_show_timeline(struct plan_view *v)
{
    const struct plan_wish *w = v->wish;
    struct plan_row row = {
        .asked = w->algorithms[0], .bytes = w->sizes[0], .as_given = w->as_given, .unaware = w->unaware};
    struct job_request ask = plan_request(v, &row, 0);
    struct timeline *t = malloc(sizeof *t);
    bool drawn_only = w->timeline && strcmp(w->timeline, "-") == 0;
    if (!t) return fprintf(stderr, "railccl plan: out of memory\n"), 2;
    if (timeline_run(&v->network, &ask, w->fails, w->n_fails, t) != RAIL_OK) return free(t), plan_complain();
    if (!w->json && !drawn_only) plan_print_head(v, stdout), print_text(v, t);
    if (w->json) print_json(v, t);
    int status = w->timeline ? draw_to(w->timeline, v, t) : 0;
    free(t);
    return status;
}
