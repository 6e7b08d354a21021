/* The binary wait, reset and signal: the cases of IGT's syncobj_wait. */
#include <errno.h>

#include "syncobj.h"
#include "tap.h"
#include "waits.h"

enum { BAD = 0xdeadbeef };

static const uint32_t none = 0;

static void wait_bad_flags(int fd, const struct variant *variant)
{
    GIVES(syncobj_wait(fd, &(struct wait){ .flags = BAD }), -EINVAL);
    GIVES(syncobj_wait(fd, &(struct wait){ .flags = WAIT_AVAILABLE }), -EINVAL); /* of timelines only */
}

static void wait_zero_handles(int fd, const struct variant *variant)
{
    GIVES(syncobj_wait(fd, &(struct wait){ .handles = 0 }), 0);
}

static void wait_illegal_handle(int fd, const struct variant *variant)
{
    GIVES(syncobj_wait(fd, &(struct wait){ .handles = &none, .count = 1 }), -ENOENT);
}

static void reset_zero_handles(int fd, const struct variant *variant)
{
    GIVES(syncobj_reset(fd, NULL, 0, 0), -EINVAL);
}

static void reset_illegal_handle(int fd, const struct variant *variant)
{
    GIVES(syncobj_reset(fd, &none, 1, 0), -ENOENT);
}

static void reset_bad_pad(int fd, const struct variant *variant)
{
    GIVES(syncobj_reset(fd, &none, 1, BAD), -EINVAL);
}

static void signal_zero_handles(int fd, const struct variant *variant)
{
    GIVES(syncobj_signal(fd, NULL, 0, 0), -EINVAL);
}

static void signal_illegal_handle(int fd, const struct variant *variant)
{
    GIVES(syncobj_signal(fd, &none, 1, 0), -ENOENT);
}

static void signal_bad_pad(int fd, const struct variant *variant)
{
    GIVES(syncobj_signal(fd, &none, 1, BAD), -EINVAL);
}

static int look(int fd, uint32_t handle)
{
    return syncobj_wait(fd, &(struct wait){ .handles = &handle, .count = 1 });
}

/* One handle that is none, and nothing is done to the others. */
static void reset_one_illegal_handle(int fd, const struct variant *variant)
{
    uint32_t handles[3] = { new_signalled_syncobj(fd), 0, new_signalled_syncobj(fd) };

    GIVES(syncobj_reset(fd, handles, 3, 0), -ENOENT);
    GIVES(look(fd, handles[0]), 0);
    GIVES(look(fd, handles[2]), 0);
}

static void signal_one_illegal_handle(int fd, const struct variant *variant)
{
    uint32_t handles[3] = { new_syncobj(fd), 0, new_syncobj(fd) };

    GIVES(syncobj_signal(fd, handles, 3, 0), -ENOENT);
    GIVES(look(fd, handles[0]), -EINVAL);
    GIVES(look(fd, handles[2]), -EINVAL);
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
        { "invalid-reset-zero-handles", reset_zero_handles },
        { "invalid-reset-illegal-handle", reset_illegal_handle },
        { "invalid-reset-one-illegal-handle", reset_one_illegal_handle },
        { "invalid-reset-bad-pad", reset_bad_pad },
        { "invalid-signal-zero-handles", signal_zero_handles },
        { "invalid-signal-illegal-handle", signal_illegal_handle },
        { "invalid-signal-one-illegal-handle", signal_one_illegal_handle },
        { "invalid-signal-bad-pad", signal_bad_pad },
    };

    for (size_t i = 0; i < LEN(list); i++)
        run_case(DEVICE, list[i].name, list[i].run, NULL);
    wait_cases(false);
    return finish();
}
