#include "waits.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "syncobj.h"
#include "tap.h"
#include "waiter.h"

/* What has become of the work for a point. */
enum { UNSUBMITTED = 1, SUBMITTED = 2, SIGNALED = 4 };

struct variant {
    bool timeline;
    uint32_t flags;
    uint32_t stages, count; /* of the matrix */
    int expected;
};

/* ---- the matrix: flags x stages ---- */

static int outcome(uint32_t flags, uint32_t stages)
{
    uint32_t reached = flags & WAIT_AVAILABLE ? SUBMITTED | SIGNALED : SIGNALED;

    if (stages & UNSUBMITTED && !(flags & (WAIT_FOR_SUBMIT | WAIT_AVAILABLE)))
        return -EINVAL;
    if (flags & WAIT_ALL ? !(stages & ~reached) : stages & reached)
        return 0;
    return -ETIME;
}

static void matrix_case(int fd, const struct variant *variant)
{
    /* Two points of a list are of binary objects. */
    static const uint64_t points[5] = { 613, 0, 1, 92, 0 };
    uint32_t handles[5], stage_of[5], left = variant->stages;
    struct wait wait = { .timeline = variant->timeline,
                         .handles = handles,
                         .points = points,
                         .count = variant->count,
                         .flags = variant->flags };
    int64_t begin;

    for (uint32_t i = 0; i < variant->count; i++) {
        uint64_t point = variant->timeline ? points[i] : 0;

        stage_of[i] = left & -left;
        left = left == stage_of[i] ? left : left & ~stage_of[i]; /* the last stage is that of all others */
        handles[i] = new_syncobj(fd);
        if (stage_of[i] == SUBMITTED)
            attach(fd, handles[i], point);
        else if (stage_of[i] == SIGNALED)
            trigger(fd, handles[i], point);
    }

    GIVES(syncobj_wait(fd, &wait), variant->expected);
    begin = now();
    wait.until = begin + SHORT;
    GIVES(syncobj_wait(fd, &wait), variant->expected);
    if (variant->expected == -ETIME) {
        CHECK(now() >= wait.until, "the wait ended %lld ns early", (long long)(wait.until - now()));
        return;
    }
    wait.until = -1; /* UINT64_MAX in IGT: for the kernel a time that is past */
    GIVES(syncobj_wait(fd, &wait), variant->expected);
    wait.until = INT64_MAX;
    GIVES(syncobj_wait(fd, &wait), variant->expected);
    if (variant->expected == 0 && !(variant->flags & WAIT_ALL)) {
        uint32_t reached = variant->flags & WAIT_AVAILABLE ? SUBMITTED | SIGNALED : SIGNALED;

        CHECK(wait.first < variant->count && stage_of[wait.first] & reached, "first signalled: %u",
              wait.first);
    }
}

static void matrix(bool timeline)
{
    static const uint32_t stages[] = { UNSUBMITTED,
                                       SUBMITTED,
                                       UNSUBMITTED | SUBMITTED,
                                       SIGNALED,
                                       UNSUBMITTED | SIGNALED,
                                       SUBMITTED | SIGNALED,
                                       UNSUBMITTED | SUBMITTED | SIGNALED };
    uint32_t all_flags = WAIT_ALL | WAIT_FOR_SUBMIT | (timeline ? WAIT_AVAILABLE : 0);

    for (int multi = 0; multi < 2; multi++)
        for (uint32_t flags = 0; flags <= all_flags; flags++)
            for (size_t i = 0; i < LEN(stages); i++) {
                struct variant variant = { .timeline = timeline,
                                           .flags = flags,
                                           .stages = stages[i],
                                           .count = !multi     ? 1
                                                    : timeline ? 5
                                                               : 3,
                                           .expected = outcome(flags, stages[i]) };
                char name[128];

                if (!multi && stages[i] & (stages[i] - 1))
                    continue;
                snprintf(name, sizeof name, "%s%s-wait%s%s%s%s%s%s",
                         variant.expected == -EINVAL    ? "invalid-"
                         : variant.expected && timeline ? "etime-"
                                                        : "",
                         multi ? "multi" : "single", flags & WAIT_ALL ? "-all" : "",
                         flags & WAIT_FOR_SUBMIT ? "-for-submit" : "",
                         flags & WAIT_AVAILABLE ? "-available" : "",
                         stages[i] & UNSUBMITTED ? "-unsubmitted" : "",
                         stages[i] & SUBMITTED ? "-submitted" : "", stages[i] & SIGNALED ? "-signaled" : "");
                run_case(DEVICE, name, matrix_case, &variant);
            }
}

/* ---- reset and signal ---- */

static int look(int fd, const struct variant *variant, uint32_t handle, uint32_t flags)
{
    uint64_t point = 1;

    return syncobj_wait(fd, &(struct wait){ .timeline = variant->timeline,
                                            .handles = &handle,
                                            .points = &point,
                                            .count = 1,
                                            .flags = flags });
}

static void reset_unsignaled(int fd, const struct variant *variant)
{
    uint32_t handle = new_syncobj(fd);

    GIVES(look(fd, variant, handle, 0), -EINVAL);
    GIVES(syncobj_reset(fd, &handle, 1, 0), 0);
    GIVES(look(fd, variant, handle, 0), -EINVAL);
}

static void reset_signaled(int fd, const struct variant *variant)
{
    uint32_t handles[3];

    for (uint32_t i = 0; i < variant->count; i++) {
        handles[i] = new_syncobj(fd);
        trigger(fd, handles[i], variant->timeline);
        GIVES(look(fd, variant, handles[i], 0), 0);
    }
    GIVES(syncobj_reset(fd, handles, variant->count, 0), 0);
    for (uint32_t i = 0; i < variant->count; i++)
        GIVES(look(fd, variant, handles[i], 0), -EINVAL);
}

static void signal_case(int fd, const struct variant *variant)
{
    uint32_t handle = new_syncobj(fd);
    uint64_t point = 1;

    GIVES(look(fd, variant, handle, 0), -EINVAL);
    GIVES(look(fd, variant, handle, WAIT_FOR_SUBMIT), -ETIME);
    if (variant->timeline)
        GIVES(syncobj_timeline_signal(fd, &handle, &point, 1, 0), 0);
    else
        GIVES(syncobj_signal(fd, &handle, 1, 0), 0);
    GIVES(look(fd, variant, handle, 0), 0);
    GIVES(look(fd, variant, handle, WAIT_FOR_SUBMIT), 0);
}

/* ---- a thread waits meanwhile ---- */

static const uint64_t ones[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };

static struct waiter begin_wait(int fd, const struct variant *variant, const uint32_t *handles,
                                uint32_t count)
{
    return (struct waiter){ .fd = fd,
                            .wait = { .timeline = variant->timeline,
                                      .handles = handles,
                                      .points = ones,
                                      .count = count,
                                      .flags = variant->flags,
                                      .until = now() + LONG } };
}

static void delayed(int fd, const struct variant *variant)
{
    uint32_t handle = new_syncobj(fd);
    struct waiter waiter = begin_wait(fd, variant, &handle, 1);
    int work = variant->flags & WAIT_FOR_SUBMIT ? -1 : attach(fd, handle, variant->timeline);

    waiter_begin(&waiter);
    if (work < 0)
        trigger(fd, handle, variant->timeline);
    else
        advance(work, 1);
    waiter_succeeds(&waiter);
}

static void reset_during_wait_for_submit(int fd, const struct variant *variant)
{
    uint32_t handle = new_syncobj(fd);
    struct waiter waiter = begin_wait(fd, variant, &handle, 1);

    waiter_begin(&waiter);
    GIVES(syncobj_reset(fd, &handle, 1, 0), 0);
    waiter_still_waits(&waiter);
    trigger(fd, handle, variant->timeline);
    waiter_succeeds(&waiter);
}

/* A wait keeps to the first fence that it found, though the object is emptied and filled again. */
static void snapshot(int fd, const struct variant *variant)
{
    uint32_t handles[2] = { new_syncobj(fd), new_syncobj(fd) };
    struct waiter waiter = begin_wait(fd, variant, handles, 2);
    int work[2] = { -1, -1 };

    if (!(variant->flags & WAIT_FOR_SUBMIT))
        for (int i = 0; i < 2; i++)
            work[i] = attach(fd, handles[i], variant->timeline);
    waiter_begin(&waiter);

    if (variant->flags & WAIT_ALL) {
        if (work[0] < 0)
            trigger(fd, handles[0], variant->timeline);
        else
            advance(work[0], 1);
    } else if (variant->flags & WAIT_FOR_SUBMIT) {
        attach(fd, handles[0], variant->timeline);
    }
    GIVES(syncobj_reset(fd, &handles[0], 1, 0), 0);
    attach(fd, handles[0], variant->timeline); /* is never done: who takes it up waits until the end */
    rest(SHORT);
    waiter_still_waits(&waiter);

    if (work[1] < 0)
        trigger(fd, handles[1], variant->timeline);
    else
        advance(work[1], 1);
    waiter_succeeds(&waiter);
    if (!(variant->flags & WAIT_ALL))
        GIVES(waiter.wait.first, 1);
}

/* Eight objects are submitted, signalled, reset and submitted again in mixed turns. */
static void complex_case(int fd, const struct variant *variant)
{
    static const uint8_t turns[] = { 5, 3, 5, 0, 3, 6, 1, 0, 7, 5, 2, 6, 4, 0, 1, 7,
                                     3, 2, 6, 5, 4, 1, 0, 7, 2, 3, 4, 6, 1, 7, 2, 4 };
    uint32_t handles[8], done = 0, first = 0, enough = variant->flags & WAIT_ALL ? 8 : 1;
    int work[8], turns_of[8] = { 0 };
    struct waiter waiter = begin_wait(fd, variant, handles, 8);

    for (int i = 0; i < 8; i++) {
        handles[i] = new_syncobj(fd);
        work[i] = variant->flags & WAIT_FOR_SUBMIT ? -1 : attach(fd, handles[i], variant->timeline);
    }
    waiter_begin(&waiter);
    for (size_t turn = 0; done < enough; turn++) {
        uint8_t i = turns[turn];

        switch (turns_of[i]++) {
        case 0:
            if (work[i] < 0)
                work[i] = attach(fd, handles[i], variant->timeline);
            break;
        case 1:
            waiter_still_waits(&waiter);
            if (!done++)
                first = i;
            advance(work[i], 1);
            break;
        case 2: GIVES(syncobj_reset(fd, &handles[i], 1, 0), 0); break;
        default: attach(fd, handles[i], variant->timeline);
        }
    }
    waiter_succeeds(&waiter);
    if (enough == 1)
        GIVES(waiter.wait.first, first);
}

/* ---- signals ---- */

enum { INTERRUPTIONS = 10 };

static atomic_int handled;

static void handler(int number)
{
    (void)number;
    atomic_fetch_add(&handled, 1);
}

static void *nuisance(void *argument)
{
    int work = *(const int *)argument;
    pid_t tid = getpid(); /* the main thread */

    for (int i = 1; i <= INTERRUPTIONS; i++) {
        until_in_ioctl(tid);
        syscall(SYS_tgkill, tid, tid, SIGUSR1);
        while (atomic_load(&handled) < i) /* the handler runs while the wait goes on */
            rest(MILLISECOND / 10);
    }
    until_in_ioctl(tid);
    advance(work, 1);
    return NULL;
}

static void interrupted_with(int fd, const struct variant *variant, int sa_flags, int expected)
{
    uint32_t handle = new_syncobj(fd);
    int work = attach(fd, handle, variant->timeline), interruptions = 0, result;
    struct sigaction action = { .sa_handler = handler, .sa_flags = sa_flags };
    struct wait wait = { .timeline = variant->timeline,
                         .handles = &handle,
                         .points = ones,
                         .count = 1,
                         .flags = variant->flags,
                         .until = now() + SHORT };
    pthread_t thread;

    GIVES(syncobj_wait(fd, &wait), -ETIME);
    wait.until = now() + LONG;
    atomic_store(&handled, 0);
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
    CHECK(pthread_create(&thread, NULL, nuisance, &work) == 0, "pthread_create");
    while ((result = syncobj_wait(fd, &wait)) == -EINTR)
        interruptions++;
    GIVES(result, 0);
    pthread_join(thread, NULL);
    GIVES(interruptions, expected);
}

static void interrupted(int fd, const struct variant *variant)
{
    interrupted_with(fd, variant, 0, INTERRUPTIONS);
    interrupted_with(fd, variant, SA_RESTART, 0);
}

/* ---- all of them ---- */

static void run(const char *name, case_function *function, bool timeline, uint32_t flags, uint32_t count)
{
    run_case(DEVICE, name, function,
             &(struct variant){ .timeline = timeline, .flags = flags, .count = count });
}

void wait_cases(bool timeline)
{
    static const struct {
        uint32_t flags;
        const char *name, *delayed_name;
    } kinds[] = {
        { 0, "any", "wait-delayed-signal" },
        { WAIT_ALL, "all", "wait-all-delayed-signal" },
        { WAIT_FOR_SUBMIT, "for-submit", "wait-for-submit-delayed-submit" },
        { WAIT_ALL | WAIT_FOR_SUBMIT, "all-for-submit", "wait-all-for-submit-delayed-submit" },
    };
    char name[64];

    matrix(timeline);
    run("reset-unsignaled", reset_unsignaled, timeline, 0, 1);
    run("reset-signaled", reset_signaled, timeline, 0, 1);
    run("reset-multiple-signaled", reset_signaled, timeline, 0, 3);
    run("signal", signal_case, timeline, 0, 1);
    run("reset-during-wait-for-submit", reset_during_wait_for_submit, timeline, WAIT_FOR_SUBMIT, 1);
    for (size_t i = 0; i < LEN(kinds); i++) {
        run(kinds[i].delayed_name, delayed, timeline, kinds[i].flags, 1);
        snprintf(name, sizeof name, "wait-%s-snapshot", kinds[i].name);
        run(name, snapshot, timeline, kinds[i].flags, 2);
        snprintf(name, sizeof name, "wait-%s-complex", kinds[i].name);
        run(name, complex_case, timeline, kinds[i].flags, 8);
    }
    run("wait-any-interrupted", interrupted, timeline, 0, 1);
    run("wait-all-interrupted", interrupted, timeline, WAIT_ALL, 1);
}
