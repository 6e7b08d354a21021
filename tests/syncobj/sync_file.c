/* Software timelines and sync files by themselves: the cases of IGT's sw_sync. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syncobj.h"
#include "tap.h"

enum { THREADS = 4, ROUNDS = 24, TIMELINES = 8, MERGES = 64 };

/* The second is the caller's no longer. */
static int merged_with(int first, int second)
{
    int fence = sync_file_merge(first, second);

    CHECK(fence >= 0, "SYNC_IOC_MERGE gave %d (%s)", fence, strerror(-fence));
    close(second);
    return fence;
}

static void alloc_timeline(int fd, const struct variant *variant)
{
    close(sw_sync_open());
}

static void alloc_fence(int fd, const struct variant *variant)
{
    int timeline = sw_sync_open();

    GIVES(sync_file_wait(sw_sync_new_fence(timeline, 0), 0), 0);
    GIVES(sync_file_wait(sw_sync_new_fence(timeline, 1), 0), -ETIME);
}

static void alloc_fence_invalid_timeline(int fd, const struct variant *variant)
{
    GIVES(sw_sync_fence(-1, 0), -EBADF);
    GIVES(sw_sync_fence(open("/dev/null", O_RDWR | O_CLOEXEC), 0), -ENOTTY);
}

static void timeline_closed(int fd, const struct variant *variant)
{
    int timeline = sw_sync_open(), fence = sw_sync_new_fence(timeline, 1);

    GIVES(sync_file_wait(fence, 0), -ETIME);
    close(timeline);
    GIVES(sync_file_wait(fence, LONG / MILLISECOND), 0);
    GIVES(sync_file_count(fence, -ENOENT), 1);
}

static void timeline_closed_signaled(int fd, const struct variant *variant)
{
    int timeline = sw_sync_open(), fence = sw_sync_new_fence(timeline, 1);

    advance(timeline, 1);
    close(timeline);
    GIVES(sync_file_wait(fence, 0), 0);
    GIVES(sync_file_count(fence, 1), 1);
}

static void alloc_merge_fence(int fd, const struct variant *variant)
{
    int fences[2] = { sw_sync_new_fence(sw_sync_open(), 1), sw_sync_new_fence(sw_sync_open(), 1) };

    GIVES(sync_file_count(merged_with(fences[1], fences[0]), 0), 2);
}

static void sync_busy(int fd, const struct variant *variant)
{
    static const uint32_t steps[] = { 2, 3, 5, 7, 11, 13, 17, 19, 23, 29 };
    int timeline = sw_sync_open(), fence = sw_sync_new_fence(timeline, 5);
    uint32_t value = 10;

    GIVES(sync_file_wait(fence, 0), -ETIME);
    advance(timeline, 1);
    GIVES(sync_file_wait(fence, 0), -ETIME);
    advance(timeline, 4);
    GIVES(sync_file_wait(fence, 0), 0);
    advance(timeline, 5);
    GIVES(sync_file_wait(fence, 0), 0);
    for (size_t i = 0; i < LEN(steps); i++) {
        fence = sw_sync_new_fence(timeline, value += steps[i]);
        GIVES(sync_file_wait(fence, 0), -ETIME);
        advance(timeline, steps[i]);
        GIVES(sync_file_wait(fence, 0), 0);
    }
}

static void end_of(pid_t child)
{
    int status;

    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "the child failed");
}

static void sync_busy_fork(int fd, const struct variant *variant)
{
    int timeline = sw_sync_open(), fence = sw_sync_new_fence(timeline, 1);
    pid_t child;

    GIVES(sync_file_wait(fence, 0), -ETIME);
    child = fork();
    if (child == 0) {
        advance(timeline, 1);
        _exit(0);
    }
    GIVES(sync_file_wait(fence, LONG / MILLISECOND), 0);
    end_of(child);
}

/* The timeline goes to the child by a message, not by the fork. */
static void sync_busy_fork_unixsocket(int fd, const struct variant *variant)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    char byte = 0;
    struct iovec text = { .iov_base = &byte, .iov_len = 1 };
    struct msghdr message = { .msg_iov = &text,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = sizeof control.bytes };
    int sockets[2], timeline, fence;
    pid_t child;

    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets) == 0, "socketpair");
    child = fork();
    if (child == 0) {
        CHECK(recvmsg(sockets[1], &message, 0) == 1, "recvmsg");
        memcpy(&timeline, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof timeline);
        advance(timeline, 1);
        _exit(0);
    }
    timeline = sw_sync_open();
    fence = sw_sync_new_fence(timeline, 1);
    GIVES(sync_file_wait(fence, 0), -ETIME);
    control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof timeline),
                                       .cmsg_level = SOL_SOCKET,
                                       .cmsg_type = SCM_RIGHTS };
    memcpy(CMSG_DATA(&control.header), &timeline, sizeof timeline);
    CHECK(sendmsg(sockets[0], &message, 0) == 1, "sendmsg");
    GIVES(sync_file_wait(fence, LONG / MILLISECOND), 0);
    GIVES(sync_file_count(fence, 1), 1);
    end_of(child);
}

static void sync_merge_invalid(int fd, const struct variant *variant)
{
    int fence = sw_sync_new_fence(sw_sync_open(), 1);

    CHECK(sync_file_merge(fence, -1) < 0, "a merge with the descriptor -1 succeeded");
    CHECK(sync_file_merge(fence, open(DEVICE, O_RDWR | O_CLOEXEC)) < 0, "a merge with the device succeeded");
    CHECK(sync_file_merge(fence, open("/dev/null", O_RDWR | O_CLOEXEC)) < 0,
          "a merge with /dev/null succeeded");
    GIVES(sync_file_count(fence, 0), 1);
}

/* Of one timeline only the last fence stays. */
static void sync_merge(int fd, const struct variant *variant)
{
    int timeline = sw_sync_open();
    int fences[3] = { sw_sync_new_fence(timeline, 1), sw_sync_new_fence(timeline, 2),
                      sw_sync_new_fence(timeline, 3) };
    int all = merged_with(fences[2], sync_file_merge(fences[0], fences[1]));

    GIVES(sync_file_count(all, 0), 1);
    for (int i = 0; i < 3; i++) {
        GIVES(sync_file_count(fences[i], 0), 1);
        GIVES(sync_file_count(all, 1), 0);
        advance(timeline, 1);
        GIVES(sync_file_count(fences[i], 1), 1);
    }
    GIVES(sync_file_count(all, 0), 0);
    GIVES(sync_file_count(all, 1), 1);
}

static void sync_merge_same(int fd, const struct variant *variant)
{
    int timeline = sw_sync_open(), fence = sw_sync_new_fence(timeline, 1),
        same = sync_file_merge(fence, fence);

    GIVES(sync_file_count(same, 0), 1);
    advance(timeline, 1);
    GIVES(sync_file_count(fence, 1), 1);
    GIVES(sync_file_count(same, 1), 1);
}

static void sync_multi_timeline_wait(int fd, const struct variant *variant)
{
    int timelines[3], all = -1;

    for (int i = 0; i < 3; i++) {
        timelines[i] = sw_sync_open();
        all = i ? merged_with(sw_sync_new_fence(timelines[i], 5), all) : sw_sync_new_fence(timelines[0], 5);
    }
    for (int done = 0; done < 3; done++) {
        GIVES(sync_file_count(all, 0), 3 - done);
        GIVES(sync_file_count(all, 1), done);
        GIVES(sync_file_wait(all, 0), -ETIME);
        advance(timelines[done], 5);
    }
    GIVES(sync_file_wait(all, 0), 0);
    GIVES(sync_file_count(all, 1), 3);
}

/* ---- threads ---- */

struct work {
    int timeline;
    uint32_t number; /* of the thread */
    atomic_uint *counter;
    sem_t *taken; /* who advances the timeline: another thread after this, or (none) each for the next */
};

/* The threads' turns are the points of one timeline. */
static void *take_turns(void *argument)
{
    const struct work *work = argument;

    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t turn = i * THREADS + work->number;
        int fence = sw_sync_new_fence(work->timeline, turn);

        GIVES(sync_file_wait(fence, LONG / MILLISECOND), 0);
        if (work->taken) {
            GIVES(atomic_load(work->counter), turn);
            sem_post(work->taken);
        } else {
            GIVES(atomic_fetch_add(work->counter, 1), turn);
            advance(work->timeline, 1);
        }
        close(fence);
    }
    return NULL;
}

static void turns(bool one_producer)
{
    atomic_uint counter = 0;
    sem_t taken;
    struct work work[THREADS];
    pthread_t threads[THREADS];
    int timeline = sw_sync_open();

    sem_init(&taken, 0, 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        work[i] = (struct work){ timeline, i, &counter, one_producer ? &taken : NULL };
        CHECK(pthread_create(&threads[i], NULL, take_turns, &work[i]) == 0, "pthread_create");
    }
    for (uint32_t i = 0; one_producer && i < THREADS * ROUNDS; i++) {
        sem_wait(&taken);
        atomic_fetch_add(&counter, 1);
        advance(timeline, 1);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    GIVES(atomic_load(&counter), THREADS * ROUNDS);
}

static void sync_multi_consumer(int fd, const struct variant *variant)
{
    turns(true);
}

static void sync_multi_consumer_producer(int fd, const struct variant *variant)
{
    turns(false);
}

struct producer {
    int mine, consumers; /* timelines */
    atomic_uint *counter;
};

static void *produce(void *argument)
{
    const struct producer *producer = argument;

    for (uint32_t i = 0; i < ROUNDS; i++) {
        int fence = sw_sync_new_fence(producer->consumers, i);

        GIVES(sync_file_wait(fence, LONG / MILLISECOND), 0);
        atomic_fetch_add(producer->counter, 1);
        advance(producer->mine, 1);
        close(fence);
    }
    return NULL;
}

/* A round is over when all producers are, which is one merged fence; then they are let go on. */
static void sync_multi_producer_single_consumer(int fd, const struct variant *variant)
{
    atomic_uint counter = 0;
    int consumers = sw_sync_open();
    struct producer producers[THREADS];
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++) {
        producers[i] = (struct producer){ sw_sync_open(), consumers, &counter };
        CHECK(pthread_create(&threads[i], NULL, produce, &producers[i]) == 0, "pthread_create");
    }
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        int all = sw_sync_new_fence(producers[0].mine, round);

        for (int i = 1; i < THREADS; i++) {
            int one = sw_sync_new_fence(producers[i].mine, round);

            all = merged_with(one, all);
            close(one);
        }
        GIVES(sync_file_wait(all, LONG / MILLISECOND), 0);
        GIVES(atomic_load(&counter), THREADS * round);
        advance(consumers, 1);
        close(all);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* ---- many merges ---- */

static void sync_expired_merge(int fd, const struct variant *variant)
{
    int timeline = sw_sync_open(), expired;

    advance(timeline, 100);
    expired = sw_sync_new_fence(timeline, 1);
    GIVES(sync_file_wait(expired, 0), 0);
    for (int i = 0; i < MERGES; i++) {
        int fence = sync_file_merge(expired, expired);

        GIVES(sync_file_wait(fence, 0), 0);
        close(fence);
    }
}

static void sync_random_merge(int fd, const struct variant *variant)
{
    int timelines[TIMELINES], all = -1;
    uint32_t last[TIMELINES] = { 0 }, random = 1;

    for (int i = 0; i < TIMELINES; i++)
        timelines[i] = sw_sync_open();
    for (int i = 0; i < MERGES; i++) {
        uint32_t which, seqno;

        random = random * 1664525 + 1013904223;
        which = random >> 28 & (TIMELINES - 1);
        seqno = 1 + (random >> 8 & 0xffff);
        last[which] = seqno > last[which] ? seqno : last[which];
        all = i ? merged_with(sw_sync_new_fence(timelines[which], seqno), all)
                : sw_sync_new_fence(timelines[which], seqno);
    }
    for (int i = 0; i < TIMELINES; i++)
        if (last[i]) {
            GIVES(sync_file_wait(all, 0), -ETIME);
            advance(timelines[i], last[i]);
        }
    GIVES(sync_file_wait(all, 0), 0);
}

int main(void)
{
    static const struct {
        const char *name;
        case_function *run;
    } list[] = {
        { "alloc_timeline", alloc_timeline },
        { "alloc_fence", alloc_fence },
        { "alloc_fence_invalid_timeline", alloc_fence_invalid_timeline },
        { "timeline_closed", timeline_closed },
        { "timeline_closed_signaled", timeline_closed_signaled },
        { "alloc_merge_fence", alloc_merge_fence },
        { "sync_busy", sync_busy },
        { "sync_busy_fork", sync_busy_fork },
        { "sync_busy_fork_unixsocket", sync_busy_fork_unixsocket },
        { "sync_merge_invalid", sync_merge_invalid },
        { "sync_merge", sync_merge },
        { "sync_merge_same", sync_merge_same },
        { "sync_multi_timeline_wait", sync_multi_timeline_wait },
        { "sync_multi_consumer", sync_multi_consumer },
        { "sync_multi_consumer_producer", sync_multi_consumer_producer },
        { "sync_multi_producer_single_consumer", sync_multi_producer_single_consumer },
        { "sync_expired_merge", sync_expired_merge },
        { "sync_random_merge", sync_random_merge },
    };

    for (size_t i = 0; i < LEN(list); i++)
        run_case(NULL, list[i].name, list[i].run, NULL);
    return finish();
}
