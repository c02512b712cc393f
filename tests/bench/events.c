/*
 * events - how long events take to reach their readers.
 *
 *     events SOCKET DIRECTORY READERS EVENTS
 *
 * DIRECTORY (its names divided by /, "" for the root) has the files `events`, a
 * log whose lines begin with SEQ TIME_NS, and `emit`, which adds a line for each
 * write, and has none yet.  So many connections read `events`; one more writes `emit` when all
 * readers wait.  Latency runs from TIME_NS to the read(2) that brought the line.
 * Prints the median and the worst of the first and of the last reader, in us.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MSIZE = 8192, MOST = 4096 };

static uint8_t in[MSIZE], out[MSIZE];
static const char *path, *directory;

static void die(const char *what) { perror(what); exit(1); }

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint8_t *put(uint8_t *p, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) *p++ = (uint8_t)(v >> 8 * i);
    return p;
}
static uint8_t *puts_(uint8_t *p, const char *s, size_t n) { memcpy(put(p, n, 2), s, n); return p + 2 + n; }
static uint32_t get4(const uint8_t *p) { return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24; }

static uint8_t *begin(int type, int tag) { out[4] = (uint8_t)type; return put(out + 5, (uint64_t)tag, 2); }
static void send_(int fd, uint8_t *end) {
    put(out, (uint64_t)(end - out), 4);
    if (write(fd, out, (size_t)(end - out)) != end - out) die("write");
}
static void receive(int fd, int type) {
    size_t have = 0;
    while (have < 4 || have < get4(in)) {
        ssize_t n = read(fd, in + have, sizeof in - have);
        if (n <= 0) die("read");
        have += (size_t)n;
    }
    if (in[4] != type) { fprintf(stderr, "events: reply of type %d, not %d\n", in[4], type); exit(1); }
}

static void tread(int fd, uint64_t offset) {
    send_(fd, put(put(put(begin(116, 1), 1, 4), offset, 8), 4096, 4));
}

static int line(const char *file, int flags) {
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), names = 1;
    strncpy(at.sun_path, path, sizeof at.sun_path - 1);
    if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at)) die(path);
    send_(fd, puts_(put(begin(100, 0xffff), MSIZE, 4), "9P2000.L", 8));
    receive(fd, 101);
    send_(fd, put(puts_(puts_(put(put(begin(104, 1), 0, 4), 0xffffffff, 4), "root", 4), "", 0), 0, 4));
    receive(fd, 105);
    uint8_t *count = put(put(begin(110, 1), 0, 4), 1, 4), *p = count + 2;
    for (const char *s = directory; *s; names++) {
        size_t n = strcspn(s, "/");
        p = puts_(p, s, n);
        s += n + (s[n] == '/');
    }
    p = puts_(p, file, strlen(file));
    put(count, (uint64_t)names, 2);
    send_(fd, p);
    receive(fd, 111);
    send_(fd, put(put(begin(12, 1), 1, 4), (uint64_t)flags, 4));
    receive(fd, 13);
    return fd;
}

static int order(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "usage: events SOCKET DIRECTORY READERS EVENTS\n"); return 2; }
    path = argv[1];
    directory = argv[2];
    int readers = atoi(argv[3]), events = atoi(argv[4]), poll = epoll_create1(0);
    if (readers < 1 || readers > MOST || events < 1 || events > MOST) return 2;
    int *fds = calloc((size_t)readers, sizeof *fds);
    uint64_t *offset = calloc((size_t)readers, sizeof *offset);
    double *first = calloc((size_t)events, sizeof *first), *last = calloc((size_t)events, sizeof *last);
    int emit = line("emit", 1);
    for (int i = 0; i < readers; i++) {
        struct epoll_event e = { .events = EPOLLIN, .data.u32 = (uint32_t)i };
        fds[i] = line("events", 0);
        if (epoll_ctl(poll, EPOLL_CTL_ADD, fds[i], &e)) die("epoll_ctl");
        tread(fds[i], offset[i]);
    }
    for (int event = 0; event < events; event++) {
        usleep(3000 + 30u * (unsigned)readers);
        send_(emit, put(put(put(put(begin(118, 1), 1, 4), 0, 8), 1, 4), 'x', 1));
        receive(emit, 119);
        for (int left = readers; left;) {
            struct epoll_event ready[256];
            int n = epoll_wait(poll, ready, 256, 5000);
            if (n <= 0) { fprintf(stderr, "events: %d of %d readers got nothing\n", left, readers); return 1; }
            for (int k = 0; k < n; k++, left--) {
                unsigned i = ready[k].data.u32;
                receive(fds[i], 117);
                uint64_t came = now_ns();
                uint32_t size = get4(in + 7);
                in[11 + size] = 0;
                last[event] = (double)(int64_t)(came - strtoull(strchr((char *)in + 11, ' ') + 1, NULL, 10)) / 1e3;
                if (left == readers) first[event] = last[event];
                offset[i] += size + 1;                  /* at the line's end a read would be answered with nothing */
                tread(fds[i], offset[i]);
            }
        }
    }
    qsort(first, (size_t)events, sizeof *first, order);
    qsort(last, (size_t)events, sizeof *last, order);
    printf("%.1f %.1f %.1f %.1f\n", first[events / 2], first[events - 1], last[events / 2], last[events - 1]);
    return 0;
}
