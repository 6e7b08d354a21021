/* Two processes: the part "another process" of vk.h. */
#include "vk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char mark[] = "--peer";

struct peer peer_start(char **arguments)
{
    struct peer peer = { .child = 0 };
    int sockets[2];
    char number[16];

    if (arguments[1] && strcmp(arguments[1], mark) == 0) {
        peer.socket = atoi(arguments[2]);
        return peer;
    }
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets) == 0, "socketpair: %s", strerror(errno));
    fflush(stdout);
    peer.child = fork();
    CHECK(peer.child >= 0, "fork: %s", strerror(errno));
    if (peer.child == 0) {
        close(sockets[0]);
        snprintf(number, sizeof number, "%d", sockets[1]);
        execl(arguments[0], arguments[0], mark, number, NULL);
        fail(__FILE__, __LINE__, "exec %s: %s", arguments[0], strerror(errno));
    }
    close(sockets[1]);
    peer.socket = sockets[0];
    return peer;
}

union control {
    struct cmsghdr header; /* for its alignment */
    char bytes[CMSG_SPACE(sizeof(int))];
};

void peer_send(const struct peer *peer, int fd)
{
    union control control = { .bytes = { 0 } };
    struct iovec text = { .iov_base = (void *)&fd, .iov_len = sizeof fd };
    struct msghdr message = { .msg_iov = &text, .msg_iovlen = 1 };

    if (fd >= 0) {
        struct cmsghdr *header;

        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        header = CMSG_FIRSTHDR(&message);
        *header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof fd),
                                    .cmsg_level = SOL_SOCKET,
                                    .cmsg_type = SCM_RIGHTS };
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    CHECK(sendmsg(peer->socket, &message, MSG_NOSIGNAL) == sizeof fd, "sendmsg: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

int peer_receive(const struct peer *peer)
{
    union control control;
    int number, fd;
    struct iovec text = { .iov_base = &number, .iov_len = sizeof number };
    struct msghdr message = { .msg_iov = &text,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = sizeof control.bytes };
    struct cmsghdr *header;

    CHECK(recvmsg(peer->socket, &message, MSG_CMSG_CLOEXEC) == sizeof number,
          "the other process went away before it sent a descriptor");
    if (number < 0)
        return -1;
    header = CMSG_FIRSTHDR(&message);
    CHECK(header && header->cmsg_type == SCM_RIGHTS, "a message without its descriptor");
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

void peer_meet(const struct peer *peer, const char *step)
{
    char theirs[128] = "";

    CHECK(send(peer->socket, step, strlen(step), MSG_NOSIGNAL) > 0, "%s: the other process went away", step);
    CHECK(recv(peer->socket, theirs, sizeof theirs - 1, 0) > 0, "%s: the other process went away", step);
    CHECK(strcmp(theirs, step) == 0, "this process is at \"%s\", the other at \"%s\"", step, theirs);
}

void peer_end(struct peer *peer)
{
    int status;

    close(peer->socket);
    if (!peer->child)
        return;
    CHECK(waitpid(peer->child, &status, 0) == peer->child, "waitpid: %s", strerror(errno));
    if (WIFSIGNALED(status))
        fail(__FILE__, __LINE__, "the other process died: %s", strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status))
        exit(WEXITSTATUS(status)); /* it has said why */
}
