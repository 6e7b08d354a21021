/*
 * The calls on DRM sync objects (include/uapi/drm/drm.h), on software timelines (drivers/dma-buf/sw_sync.c)
 * and on sync files (include/uapi/linux/sync_file.h) as plain ioctls. Each gives 0, or a negative errno.
 */
#ifndef SYNCOBJ_H
#define SYNCOBJ_H

#include <stdbool.h>
#include <stdint.h>

#define DEVICE "/dev/dri/renderD128"
#define MILLISECOND 1000000ll /* nanoseconds, as all times here */
#define SECOND 1000000000ll
#define SHORT (10 * MILLISECOND)
#define LONG (30 * SECOND)

enum { SYNCOBJ_CREATE_SIGNALED = 1 };
enum { SYNCOBJ_SYNC_FILE = 1, SYNCOBJ_WITH_POINT = 2 }; /* of both calls on descriptors */
enum { WAIT_ALL = 1, WAIT_FOR_SUBMIT = 2, WAIT_AVAILABLE = 4, WAIT_DEADLINE = 8 };
enum { QUERY_LAST_SUBMITTED = 1 };

/* Padding and counts are arguments only of the calls whose cases get them wrong. */
int syncobj_create(int fd, uint32_t flags, uint32_t *handle);
int syncobj_destroy(int fd, uint32_t handle, uint32_t pad);
/* flags, pad and point; on success `number` is the descriptor. */
int syncobj_to_fd(int fd, uint32_t handle, uint32_t flags, uint32_t pad, uint64_t point, int *number);
/* On success `handle` is the new handle; with SYNCOBJ_SYNC_FILE it says which object takes the fence. */
int syncobj_from_fd(int fd, int number, uint32_t flags, uint32_t pad, uint64_t point, uint32_t *handle);
int syncobj_reset(int fd, const uint32_t *handles, uint32_t count, uint32_t pad);
int syncobj_signal(int fd, const uint32_t *handles, uint32_t count, uint32_t pad);
int syncobj_timeline_signal(int fd, const uint32_t *handles, const uint64_t *points, uint32_t count,
                            uint32_t flags);
int syncobj_query(int fd, const uint32_t *handles, uint64_t *points, uint32_t count, uint32_t flags);
int syncobj_eventfd(int fd, uint32_t handle, uint64_t point, uint32_t flags, int eventfd, uint32_t pad);

struct transfer {
    uint32_t from, to; /* handles */
    uint64_t from_point, to_point;
    uint32_t flags, pad;
};
int syncobj_transfer(int fd, const struct transfer *transfer);

/* A wait by either call: of the binary one `points` is no argument. */
struct wait {
    bool timeline;
    const uint32_t *handles;
    const uint64_t *points;
    uint32_t count;
    uint32_t flags;
    int64_t until;  /* of CLOCK_MONOTONIC */
    uint32_t first; /* answer: the first that was signalled */
};
int syncobj_wait(int fd, struct wait *wait);

/* A software timeline is a descriptor; closing it ends its fences with -ENOENT. */
int sw_sync_open(void);
int sw_sync_fence(int timeline, uint32_t seqno); /* a sync file, or a negative errno */
int sw_sync_advance(int timeline, uint32_t count);

/* 0 when a sync file's fence is done, errors too; -ETIME at the timeout (milliseconds). */
int sync_file_wait(int file, int timeout);
int sync_file_merge(int first, int second); /* a new sync file, or a negative errno */
/* How many of a file's fences have this status: 0 pending, 1 done, negative an error. Not for more than 16.
 */
int sync_file_count(int file, int status);

/* Steps of cases that have to succeed. */
uint32_t new_syncobj(int fd);
uint32_t new_signalled_syncobj(int fd);
int sw_sync_new_fence(int timeline, uint32_t seqno);
/* Work for a point (0: the binary object), not done before the timeline that it gives is advanced by 1. */
int attach(int fd, uint32_t handle, uint64_t point);
void attach_fence(int fd, uint32_t handle, uint64_t point, int fence);
void advance(int timeline, uint32_t count);
/* Work that is done at once. */
void trigger(int fd, uint32_t handle, uint64_t point);
uint64_t value_of(int fd, uint32_t handle);

int64_t now(void);
void rest(int64_t duration);

#endif
