/* Points of timelines: the cases of IGT's syncobj_timeline. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "syncobj.h"
#include "tap.h"
#include "waits.h"

enum { BAD = 0xdeadbeef };

static const uint32_t none = 0;
static const uint64_t one = 1;

static int look(int fd, uint32_t handle, uint64_t point, uint32_t flags)
{
    return syncobj_wait(
        fd,
        &(struct wait){ .timeline = true, .handles = &handle, .points = &point, .count = 1, .flags = flags });
}

static void signal_point(int fd, uint32_t handle, uint64_t point)
{
    GIVES(syncobj_timeline_signal(fd, &handle, &point, 1, 0), 0);
}

/* ---- bad input ---- */

static void wait_bad_flags(int fd, const struct variant *variant)
{
    GIVES(syncobj_wait(fd, &(struct wait){ .timeline = true, .flags = BAD }), -EINVAL);
}

static void wait_zero_handles(int fd, const struct variant *variant)
{
    GIVES(syncobj_wait(fd, &(struct wait){ .timeline = true }), 0);
}

static void wait_illegal_handle(int fd, const struct variant *variant)
{
    GIVES(syncobj_wait(fd, &(struct wait){ .timeline = true, .handles = &none, .count = 1 }), -ENOENT);
}

static void query_zero_handles(int fd, const struct variant *variant)
{
    GIVES(syncobj_query(fd, NULL, NULL, 0, 0), -EINVAL);
}

static void query_illegal_handle(int fd, const struct variant *variant)
{
    GIVES(syncobj_query(fd, &none, NULL, 1, 0), -ENOENT);
}

static void query_one_illegal_handle(int fd, const struct variant *variant)
{
    uint32_t handles[3] = { new_syncobj(fd), 0, new_syncobj(fd) };
    uint64_t points[3];

    signal_point(fd, handles[0], 1);
    signal_point(fd, handles[2], 1);
    GIVES(syncobj_query(fd, handles, points, 3, 0), -ENOENT);
    GIVES(value_of(fd, handles[2]), 1);
}

static void query_bad_pad(int fd, const struct variant *variant)
{
    GIVES(syncobj_query(fd, &none, NULL, 1, BAD), -EINVAL);
}

static void signal_zero_handles(int fd, const struct variant *variant)
{
    GIVES(syncobj_timeline_signal(fd, NULL, NULL, 0, 0), -EINVAL);
}

static void signal_illegal_handle(int fd, const struct variant *variant)
{
    GIVES(syncobj_timeline_signal(fd, &none, &one, 1, 0), -ENOENT);
}

static void signal_illegal_point(int fd, const struct variant *variant)
{
    GIVES(syncobj_timeline_signal(fd, &(uint32_t){ 1 }, &(uint64_t){ 0 }, 1, 0), -ENOENT);
}

static void signal_one_illegal_handle(int fd, const struct variant *variant)
{
    static const uint64_t points[3] = { 2, 2, 2 };
    uint32_t handles[3] = { new_syncobj(fd), 0, new_syncobj(fd) };

    signal_point(fd, handles[0], 1);
    signal_point(fd, handles[2], 1);
    GIVES(syncobj_timeline_signal(fd, handles, points, 3, 0), -ENOENT);
    GIVES(value_of(fd, handles[0]), 1);
    GIVES(value_of(fd, handles[2]), 1);
}

static void signal_bad_pad(int fd, const struct variant *variant)
{
    GIVES(syncobj_timeline_signal(fd, &none, &one, 1, BAD), -EINVAL);
}

static void transfer_illegal_handle(int fd, const struct variant *variant)
{
    uint32_t handle = new_signalled_syncobj(fd);

    GIVES(syncobj_transfer(fd, &(struct transfer){ .from = BAD, .to = BAD, .from_point = 1 }), -ENOENT);
    GIVES(syncobj_transfer(fd, &(struct transfer){ .from = handle, .to = BAD }), -ENOENT);
}

static void transfer_bad_pad(int fd, const struct variant *variant)
{
    GIVES(syncobj_transfer(fd, &(struct transfer){ .from = BAD, .to = BAD, .pad = BAD }), -EINVAL);
}

/* ---- points ---- */

static void signal_array(int fd, const struct variant *variant)
{
    static const uint64_t points[4] = { 1, 1, 1, 0 };
    uint32_t handles[4];

    for (size_t i = 0; i < LEN(handles); i++)
        handles[i] = new_syncobj(fd);
    GIVES(syncobj_timeline_signal(fd, handles, points, 4, 0), 0);
    GIVES(syncobj_wait(
              fd,
              &(struct wait){
                  .timeline = true, .handles = handles, .points = points, .count = 3, .flags = WAIT_ALL }),
          0);
    GIVES(syncobj_wait(fd, &(struct wait){ .handles = &handles[3], .count = 1 }), 0);
}

static void signal_point_0(int fd, const struct variant *variant)
{
    uint32_t handle = new_syncobj(fd);

    signal_point(fd, handle, 0);
    GIVES(look(fd, handle, 0, 0), 0);
    GIVES(syncobj_wait(fd, &(struct wait){ .handles = &handle, .count = 1, .flags = WAIT_FOR_SUBMIT }), 0);
}

/* There is no point 63 of its own once it is done: its fence is the signalled one. */
static void transfer_nonexistent_point(int fd, const struct variant *variant)
{
    uint32_t handle = new_syncobj(fd);

    signal_point(fd, handle, 63);
    GIVES(syncobj_transfer(
              fd, &(struct transfer){ .from = handle, .to = handle, .from_point = 63, .to_point = 74 }),
          0);
    GIVES(value_of(fd, handle), 74);
}

static void transfer_timeline_point(int fd, const struct variant *variant)
{
    uint32_t handle = new_syncobj(fd);
    int work = attach(fd, handle, 1);

    GIVES(value_of(fd, handle), 0);
    GIVES(look(fd, handle, 1, WAIT_ALL), -ETIME);
    advance(work, 1);
    GIVES(value_of(fd, handle), 1);
    GIVES(look(fd, handle, 1, WAIT_ALL), 0);
    signal_point(fd, handle, 2);
    GIVES(syncobj_transfer(
              fd, &(struct transfer){ .from = handle, .to = handle, .from_point = 2, .to_point = 3 }),
          0);
    GIVES(value_of(fd, handle), 3);
}

static void host_signal_points(int fd, const struct variant *variant)
{
    uint32_t handle = new_syncobj(fd);
    uint64_t value = 0, step = 1;

    for (int i = 0; i < 100; i++) {
        step = step * 6364136223846793005ull + 1442695040888963407ull;
        value += 2 + (step >> 33);
        signal_point(fd, handle, value);
        GIVES(value_of(fd, handle), value);
        GIVES(look(fd, handle, value, WAIT_FOR_SUBMIT), 0);
        GIVES(look(fd, handle, value - 1, WAIT_ALL), 0);
        GIVES(look(fd, handle, value + 1, WAIT_FOR_SUBMIT), -ETIME);
    }
}

/* Work for each of the points in turn, all on one software timeline, number i done at i + 1. */
static int submit(int fd, uint32_t handle, const uint64_t *points, const uint32_t *seqnos, size_t count)
{
    int timeline = sw_sync_open();

    for (size_t i = 0; i < count; i++) {
        int fence = sw_sync_new_fence(timeline, seqnos[i]);

        attach_fence(fd, handle, points[i], fence);
        close(fence);
    }
    return timeline;
}

static const uint32_t in_order[5] = { 1, 2, 3, 4, 5 };

/* The value is the highest point of which all before are done too. */
static void device_signal_unordered(int fd, const struct variant *variant)
{
    static const uint64_t points[5] = { 1, 2, 3, 4, 5 }, values[5] = { 1, 1, 3, 3, 5 };
    static const uint32_t seqnos[5] = { 1, 3, 2, 5, 4 };
    uint32_t handle = new_syncobj(fd);
    int timeline = submit(fd, handle, points, seqnos, 5);

    GIVES(value_of(fd, handle), 0);
    for (size_t i = 0; i < 5; i++) {
        advance(timeline, 1);
        GIVES(value_of(fd, handle), values[i]);
        GIVES(look(fd, handle, values[i], WAIT_FOR_SUBMIT), 0);
        GIVES(look(fd, handle, values[i], WAIT_ALL), 0);
    }
}

static void device_submit_unordered(int fd, const struct variant *variant)
{
    static const uint64_t points[5] = { 1, 5, 3, 6, 7 };
    uint32_t handle = new_syncobj(fd);
    int timeline = submit(fd, handle, points, in_order, 5);

    advance(timeline, 3); /* the points 1, 5 and 3: nothing up to 5 is left */
    GIVES(value_of(fd, handle), 5);
    GIVES(look(fd, handle, 5, WAIT_FOR_SUBMIT), 0);
    GIVES(look(fd, handle, 5, WAIT_ALL), 0);
    advance(timeline, 2);
    GIVES(value_of(fd, handle), 7);
}

static void host_signal_ordered(int fd, const struct variant *variant)
{
    static const uint64_t points[5] = { 1, 2, 3, 4, 5 };
    uint32_t handle = new_syncobj(fd);
    int timeline = submit(fd, handle, points, in_order, 5);

    advance(timeline, 3);
    GIVES(value_of(fd, handle), 3);
    signal_point(fd, handle, 8);
    GIVES(value_of(fd, handle), 3);
    advance(timeline, 2);
    GIVES(value_of(fd, handle), 8);
}

struct checker {
    int fd;
    uint32_t handle;
    uint64_t end;
    atomic_bool began;
};

static void *value_never_falls(void *argument)
{
    struct checker *checker = argument;
    uint64_t value, last = 0;

    do {
        value = value_of(checker->fd, checker->handle);
        CHECK(value >= last, "the value fell from %llu to %llu", (unsigned long long)last,
              (unsigned long long)value);
        last = value;
        atomic_store(&checker->began, true);
    } while (value < checker->end);
    return NULL;
}

/* Seqnos were compared as 32-bit differences once. */
static void limit_of_32_bits(int fd, const struct variant *variant)
{
    const uint64_t limit = (1ull << 31) - 1, points[5] = { 1, 5, limit + 5, limit + 6, limit * 2 };
    struct checker checker = { .fd = fd, .handle = new_syncobj(fd), .end = limit * 2 };
    pthread_t thread;
    int timeline;

    CHECK(pthread_create(&thread, NULL, value_never_falls, &checker) == 0, "pthread_create");
    while (!atomic_load(&checker.began))
        rest(MILLISECOND / 10);
    timeline = submit(fd, checker.handle, points, in_order, 5);
    for (size_t i = 0; i < 5; i++) {
        advance(timeline, 1);
        GIVES(value_of(fd, checker.handle), points[i]);
    }
    pthread_join(thread, NULL);
}

int main(void)
{
    static const struct {
        const char *name;
        case_function *run;
    } list[] = {
        { "invalid-wait-bad-flags", wait_bad_flags },
        { "wait-zero-handles", wait_zero_handles },
        { "invalid-wait-illegal-handle", wait_illegal_handle },
        { "invalid-query-zero-handles", query_zero_handles },
        { "invalid-query-illegal-handle", query_illegal_handle },
        { "invalid-query-one-illegal-handle", query_one_illegal_handle },
        { "invalid-query-bad-pad", query_bad_pad },
        { "invalid-signal-zero-handles", signal_zero_handles },
        { "invalid-signal-illegal-handle", signal_illegal_handle },
        { "invalid-signal-illegal-point", signal_illegal_point },
        { "invalid-signal-one-illegal-handle", signal_one_illegal_handle },
        { "invalid-signal-bad-pad", signal_bad_pad },
        { "invalid-transfer-illegal-handle", transfer_illegal_handle },
        { "invalid-transfer-bad-pad", transfer_bad_pad },
        { "invalid-transfer-non-existent-point", transfer_nonexistent_point },
        { "signal-array", signal_array },
        { "signal-point-0", signal_point_0 },
        { "transfer-timeline-point", transfer_timeline_point },
        { "host-signal-points", host_signal_points },
        { "device-signal-unordered", device_signal_unordered },
        { "device-submit-unordered", device_submit_unordered },
        { "host-signal-ordered", host_signal_ordered },
        { "32bits-limit", limit_of_32_bits },
    };

    for (size_t i = 0; i < LEN(list); i++)
        run_case(DEVICE, list[i].name, list[i].run, NULL);
    wait_cases(true);
    return finish();
}
