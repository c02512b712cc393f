/*
 * relay PORT SERVER: a relay of bytes, which knows nothing of 9P. SERVER: a port of the loopback, or the path of a unix socket.
 *
 * What a composed namespace is measured against beside the server itself: one more hop on one processor costs
 * the kernel's calls and two more changes of process whatever is done with the bytes, and this does nothing.
 * One thread, one epoll, blocking sends, loopback only.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FDS = 4096, SIZE = 1 << 20 };
static int other[FDS];
static char buffer[SIZE];

static int loopback(int port, int listening) {
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (listening ? bind(fd, (void *)&a, sizeof a) || listen(fd, 64) : connect(fd, (void *)&a, sizeof a)) {
        perror("relay");
        exit(1);
    }
    return fd;
}

static int server(const char *where) {
    if (*where != '/') return loopback(atoi(where), 0);
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    strncpy(a.sun_path, where, sizeof a.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (void *)&a, sizeof a)) {
        perror("relay");
        exit(1);
    }
    return fd;
}

static void watch(int epoll, int fd) {
    struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
}

static void pass(int fd) {
    ssize_t have = recv(fd, buffer, SIZE, MSG_DONTWAIT), sent = 0;
    if (have < 0 && errno == EAGAIN) return;
    while (sent < have) {
        ssize_t n = send(other[fd], buffer + sent, have - sent, MSG_NOSIGNAL);
        if (n < 0) have = 0;
        sent += n;
    }
    if (have > 0) return;
    shutdown(other[fd], SHUT_RDWR);     /* the other half ends at its own event */
    close(fd);
}

int main(int argc, char **argv) {
    if (argc != 3) return fputs("usage: relay PORT SERVER\n", stderr), 2;
    int listener = loopback(atoi(argv[1]), 1), epoll = epoll_create1(0), one = 1;
    watch(epoll, listener);
    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd != listener) {
                pass(events[i].data.fd);
                continue;
            }
            int client = accept(listener, NULL, NULL), behind = server(argv[2]);
            if (client < 0 || client >= FDS || behind >= FDS) return 1;
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            other[client] = behind;
            other[behind] = client;
            watch(epoll, client);
            watch(epoll, behind);
        }
    }
}
