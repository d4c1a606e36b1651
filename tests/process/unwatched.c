/* Loaded into a server: its epoll watches no relay socket of UDP, as if the user had watched as many
   files as fs.epoll.max_user_watches allows. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static int is_relay(int fd) {
    struct sockaddr_in name = {0};
    socklen_t size = sizeof name;
    int type = 0;
    socklen_t type_size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_size) || type != SOCK_DGRAM)
        return 0;
    if (getsockname(fd, (struct sockaddr *)&name, &size) || name.sin_family != AF_INET)
        return 0;
    return ntohs(name.sin_port) >= atoi(getenv("UNWATCHED_FROM"));
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    int (*real)(int, int, int, struct epoll_event *) = dlsym(RTLD_NEXT, "epoll_ctl");
    if (operation == EPOLL_CTL_ADD && is_relay(fd)) {
        errno = ENOSPC;
        return -1;
    }
    return real(epoll, operation, fd, event);
}
