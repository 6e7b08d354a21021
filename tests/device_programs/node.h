// How a program goes on step by step with its test, and what it shares with others.
#pragma once
#define _GNU_SOURCE
#include "nouveau.h"
#include <sys/socket.h>
#include <sys/wait.h>

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            printf("%s:%d: %s; errno %d\n", __FILE__, __LINE__, #what, errno);                     \
            fflush(stdout);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

// Tells the test where we are, and waits until it says to go on.
static inline void step(const char *where)
{
    char answer;
    printf("%s\n", where);
    fflush(stdout);
    CHECK(read(0, &answer, 1) == 1);
}

struct syncobj_fd {
    uint32_t handle, flags;
    int32_t fd;
    uint32_t pad;
    uint64_t point;
};

#define GEM_INFO _IOWR('d', 0x84, struct gem_info)
#define SYNCOBJ_HANDLE_TO_FD _IOWR('d', 0xc1, struct syncobj_fd)
#define SYNCOBJ_FD_TO_HANDLE _IOWR('d', 0xc2, struct syncobj_fd)
#define FOR_SUBMIT 2

static inline int open_as(int flags)
{
    int fd = open(RENDER_NODE, flags);
    CHECK(fd >= 0);
    return fd;
}

// Whether the descriptor is one of the device.
static inline int works(int fd)
{
    struct getparam asked = {.param = 4};
    return ioctl(fd, GETPARAM, &asked) == 0;
}

static inline int wait_for(int fd, uint32_t handle, int64_t until)
{
    struct drm_syncobj_wait wait = {
        .handles = (uintptr_t)&handle, .timeout = until, .count = 1, .flags = FOR_SUBMIT};
    return ioctl(fd, SYNCOBJ_WAIT, &wait);
}

static inline int export_object(int fd, uint32_t handle)
{
    struct drm_prime out = {.handle = handle, .flags = O_CLOEXEC | O_RDWR};
    CHECK(ioctl(fd, PRIME_HANDLE_TO_FD, &out) == 0);
    return out.fd;
}

static inline void send_fd(int to, int fd)
{
    char control[CMSG_SPACE(sizeof fd)] = {0}, byte = 'x';
    struct iovec data = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    CHECK(sendmsg(to, &message, 0) == 1);
}

static inline int receive_fd(int from)
{
    char control[CMSG_SPACE(sizeof(int))], byte;
    struct iovec data = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK(recvmsg(from, &message, MSG_CMSG_CLOEXEC) == 1);
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}
