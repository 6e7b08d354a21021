#include "syncobj.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sync_file.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "tap.h"

static int call(int fd, unsigned long request, void *argument)
{
    return ioctl(fd, request, argument) < 0 ? -errno : 0;
}

static uint64_t user(const void *pointer)
{
    return (uintptr_t)pointer;
}

/* ---- sync objects ---- */

struct create {
    uint32_t handle, flags;
};
struct destroy {
    uint32_t handle, pad;
};
struct handle_and_fd {
    uint32_t handle, flags;
    int32_t fd;
    uint32_t pad;
    uint64_t point;
};
struct binary_wait {
    uint64_t handles;
    int64_t timeout;
    uint32_t count, flags, first, pad;
    uint64_t deadline;
};
struct timeline_wait {
    uint64_t handles, points;
    int64_t timeout;
    uint32_t count, flags, first, pad;
    uint64_t deadline;
};
struct array {
    uint64_t handles;
    uint32_t count, pad;
};
struct timeline_array {
    uint64_t handles, points;
    uint32_t count, flags;
};
struct transfer_arguments {
    uint32_t from, to;
    uint64_t from_point, to_point;
    uint32_t flags, pad;
};
struct eventfd_arguments {
    uint32_t handle, flags;
    uint64_t point;
    int32_t fd;
    uint32_t pad;
};

#define CREATE _IOWR('d', 0xbf, struct create)
#define DESTROY _IOWR('d', 0xc0, struct destroy)
#define HANDLE_TO_FD _IOWR('d', 0xc1, struct handle_and_fd)
#define FD_TO_HANDLE _IOWR('d', 0xc2, struct handle_and_fd)
#define WAIT _IOWR('d', 0xc3, struct binary_wait)
#define RESET _IOWR('d', 0xc4, struct array)
#define SIGNAL _IOWR('d', 0xc5, struct array)
#define TIMELINE_WAIT _IOWR('d', 0xca, struct timeline_wait)
#define QUERY _IOWR('d', 0xcb, struct timeline_array)
#define TRANSFER _IOWR('d', 0xcc, struct transfer_arguments)
#define TIMELINE_SIGNAL _IOWR('d', 0xcd, struct timeline_array)
#define EVENTFD _IOWR('d', 0xcf, struct eventfd_arguments)

int syncobj_create(int fd, uint32_t flags, uint32_t *handle)
{
    struct create arguments = { .flags = flags };
    int result = call(fd, CREATE, &arguments);

    *handle = arguments.handle;
    return result;
}

int syncobj_destroy(int fd, uint32_t handle, uint32_t pad)
{
    return call(fd, DESTROY, &(struct destroy){ .handle = handle, .pad = pad });
}

int syncobj_to_fd(int fd, uint32_t handle, uint32_t flags, uint32_t pad, uint64_t point, int *number)
{
    struct handle_and_fd arguments = {
        .handle = handle, .flags = flags, .fd = -1, .pad = pad, .point = point
    };
    int result = call(fd, HANDLE_TO_FD, &arguments);

    *number = arguments.fd;
    return result;
}

int syncobj_from_fd(int fd, int number, uint32_t flags, uint32_t pad, uint64_t point, uint32_t *handle)
{
    struct handle_and_fd arguments = {
        .handle = *handle, .flags = flags, .fd = number, .pad = pad, .point = point
    };
    int result = call(fd, FD_TO_HANDLE, &arguments);

    *handle = arguments.handle;
    return result;
}

int syncobj_reset(int fd, const uint32_t *handles, uint32_t count, uint32_t pad)
{
    return call(fd, RESET, &(struct array){ .handles = user(handles), .count = count, .pad = pad });
}

int syncobj_signal(int fd, const uint32_t *handles, uint32_t count, uint32_t pad)
{
    return call(fd, SIGNAL, &(struct array){ .handles = user(handles), .count = count, .pad = pad });
}

static int on_points(int fd, unsigned long request, const uint32_t *handles, const uint64_t *points,
                     uint32_t count, uint32_t flags)
{
    return call(fd, request,
                &(struct timeline_array){
                    .handles = user(handles), .points = user(points), .count = count, .flags = flags });
}

int syncobj_timeline_signal(int fd, const uint32_t *handles, const uint64_t *points, uint32_t count,
                            uint32_t flags)
{
    return on_points(fd, TIMELINE_SIGNAL, handles, points, count, flags);
}

int syncobj_query(int fd, const uint32_t *handles, uint64_t *points, uint32_t count, uint32_t flags)
{
    return on_points(fd, QUERY, handles, points, count, flags);
}

int syncobj_eventfd(int fd, uint32_t handle, uint64_t point, uint32_t flags, int eventfd, uint32_t pad)
{
    return call(fd, EVENTFD,
                &(struct eventfd_arguments){
                    .handle = handle, .flags = flags, .point = point, .fd = eventfd, .pad = pad });
}

int syncobj_transfer(int fd, const struct transfer *transfer)
{
    return call(fd, TRANSFER,
                &(struct transfer_arguments){ .from = transfer->from,
                                              .to = transfer->to,
                                              .from_point = transfer->from_point,
                                              .to_point = transfer->to_point,
                                              .flags = transfer->flags,
                                              .pad = transfer->pad });
}

int syncobj_wait(int fd, struct wait *wait)
{
    struct binary_wait binary = {
        .handles = user(wait->handles), .timeout = wait->until, .count = wait->count, .flags = wait->flags
    };
    struct timeline_wait timeline = { .handles = user(wait->handles),
                                      .points = user(wait->points),
                                      .timeout = wait->until,
                                      .count = wait->count,
                                      .flags = wait->flags };
    int result = wait->timeline ? call(fd, TIMELINE_WAIT, &timeline) : call(fd, WAIT, &binary);

    wait->first = wait->timeline ? timeline.first : binary.first;
    return result;
}

/* ---- software timelines ---- */

struct sw_sync_create {
    uint32_t value;
    char name[32];
    int32_t fence;
};

#define SW_SYNC_CREATE_FENCE _IOWR('W', 0, struct sw_sync_create)
#define SW_SYNC_INC _IOW('W', 1, uint32_t)

int sw_sync_open(void)
{
    static const char path[] = "/sys/kernel/debug/sync/sw_sync";
    int fd = open(path, O_RDWR | O_CLOEXEC);

    CHECK(fd >= 0, "open %s: %s", path, strerror(errno));
    return fd;
}

int sw_sync_fence(int timeline, uint32_t seqno)
{
    struct sw_sync_create arguments = { .value = seqno, .name = "work", .fence = -1 };
    int result = call(timeline, SW_SYNC_CREATE_FENCE, &arguments);

    return result < 0 ? result : arguments.fence;
}

int sw_sync_advance(int timeline, uint32_t count)
{
    return call(timeline, SW_SYNC_INC, &count);
}

/* ---- sync files ---- */

int sync_file_wait(int file, int timeout)
{
    struct pollfd event = { .fd = file, .events = POLLIN };
    int ready = poll(&event, 1, timeout);

    CHECK(ready >= 0 && !(event.revents & (POLLNVAL | POLLERR)), "poll: events %#x", event.revents);
    return ready ? 0 : -ETIME;
}

int sync_file_merge(int first, int second)
{
    struct sync_merge_data arguments = { .name = "merged", .fd2 = second };
    int result = call(first, SYNC_IOC_MERGE, &arguments);

    return result < 0 ? result : arguments.fence;
}

int sync_file_count(int file, int status)
{
    struct sync_fence_info fences[16];
    struct sync_file_info info = { .num_fences = LEN(fences), .sync_fence_info = user(fences) };
    int found = 0;

    GIVES(call(file, SYNC_IOC_FILE_INFO, &info), 0);
    for (uint32_t i = 0; i < info.num_fences; i++)
        found += fences[i].status == status;
    return found;
}

/* ---- steps ---- */

int sw_sync_new_fence(int timeline, uint32_t seqno)
{
    int fence = sw_sync_fence(timeline, seqno);

    CHECK(fence >= 0, "sw_sync_fence(%u) gave %d (%s)", seqno, fence, strerror(-fence));
    return fence;
}

uint32_t new_syncobj(int fd)
{
    uint32_t handle;

    GIVES(syncobj_create(fd, 0, &handle), 0);
    return handle;
}

uint32_t new_signalled_syncobj(int fd)
{
    uint32_t handle;

    GIVES(syncobj_create(fd, SYNCOBJ_CREATE_SIGNALED, &handle), 0);
    return handle;
}

void attach_fence(int fd, uint32_t handle, uint64_t point, int fence)
{
    uint32_t binary = point ? new_syncobj(fd) : handle;

    GIVES(syncobj_from_fd(fd, fence, SYNCOBJ_SYNC_FILE, 0, 0, &binary), 0);
    if (!point)
        return;
    GIVES(syncobj_transfer(fd, &(struct transfer){ .from = binary, .to = handle, .to_point = point }), 0);
    GIVES(syncobj_destroy(fd, binary, 0), 0);
}

int attach(int fd, uint32_t handle, uint64_t point)
{
    int timeline = sw_sync_open(), fence = sw_sync_new_fence(timeline, 1);

    attach_fence(fd, handle, point, fence);
    close(fence);
    return timeline;
}

void advance(int timeline, uint32_t count)
{
    GIVES(sw_sync_advance(timeline, count), 0);
}

void trigger(int fd, uint32_t handle, uint64_t point)
{
    int timeline = attach(fd, handle, point);

    advance(timeline, 1);
    close(timeline);
}

uint64_t value_of(int fd, uint32_t handle)
{
    uint64_t value;

    GIVES(syncobj_query(fd, &handle, &value, 1, 0), 0);
    return value;
}

int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

void rest(int64_t duration)
{
    struct timespec left = { .tv_sec = duration / SECOND, .tv_nsec = duration % SECOND };

    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}
