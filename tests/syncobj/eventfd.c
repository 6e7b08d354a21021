/* Eventfds that a syncobj's point counts up: the cases of IGT's syncobj_eventfd. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "syncobj.h"
#include "tap.h"

enum { BAD = 0xdeadbeef };

enum order { BEFORE_SUBMISSION, BEFORE_SIGNAL, AFTER_SIGNAL };

struct variant {
    uint64_t point;
    enum order order;
};

static int new_eventfd(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    CHECK(fd >= 0, "eventfd");
    return fd;
}

static void still_silent(int eventfd)
{
    uint64_t count;

    GIVES(poll(&(struct pollfd){ .fd = eventfd, .events = POLLIN }, 1, 0), 0);
    CHECK(read(eventfd, &count, sizeof count) < 0 && errno == EAGAIN, "the eventfd was counted up");
}

static void counted_once(int eventfd)
{
    uint64_t count = 0;

    GIVES(poll(&(struct pollfd){ .fd = eventfd, .events = POLLIN }, 1, LONG / MILLISECOND), 1);
    GIVES(read(eventfd, &count, sizeof count), sizeof count);
    GIVES(count, 1);
    still_silent(eventfd);
}

static void bad_flags(int fd, const struct variant *variant)
{
    uint32_t handle = new_signalled_syncobj(fd);

    GIVES(syncobj_eventfd(fd, handle, 0, BAD, new_eventfd(), 0), -EINVAL);
    GIVES(syncobj_eventfd(fd, handle, 0, WAIT_FOR_SUBMIT, new_eventfd(), 0), -EINVAL);
}

static void illegal_handle(int fd, const struct variant *variant)
{
    GIVES(syncobj_eventfd(fd, 0, 0, 0, new_eventfd(), 0), -ENOENT);
}

static void illegal_eventfd(int fd, const struct variant *variant)
{
    uint32_t handle = new_signalled_syncobj(fd);

    GIVES(syncobj_eventfd(fd, handle, 0, 0, open("/dev/null", O_RDWR | O_CLOEXEC), 0), -EINVAL);
    GIVES(syncobj_eventfd(fd, handle, 0, 0, -1, 0), -EBADF);
}

static void bad_pad(int fd, const struct variant *variant)
{
    GIVES(syncobj_eventfd(fd, new_signalled_syncobj(fd), 0, 0, new_eventfd(), BAD), -EINVAL);
}

/* One eventfd for the point's work being done, one for its being there. */
static void counted(int fd, const struct variant *variant)
{
    uint32_t handle = new_syncobj(fd);
    int done = new_eventfd(), there = new_eventfd(), work = -1;

    if (variant->order >= BEFORE_SIGNAL)
        work = attach(fd, handle, variant->point);
    if (variant->order == AFTER_SIGNAL)
        advance(work, 1);
    GIVES(syncobj_eventfd(fd, handle, variant->point, 0, done, 0), 0);
    GIVES(syncobj_eventfd(fd, handle, variant->point, WAIT_AVAILABLE, there, 0), 0);

    if (variant->order == BEFORE_SUBMISSION) {
        still_silent(done);
        still_silent(there);
        work = attach(fd, handle, variant->point);
    }
    counted_once(there);
    if (variant->order != AFTER_SIGNAL) {
        still_silent(done);
        advance(work, 1);
    }
    counted_once(done);
    still_silent(there);
}

int main(void)
{
    run_case(DEVICE, "invalid-bad-flags", bad_flags, NULL);
    run_case(DEVICE, "invalid-illegal-handle", illegal_handle, NULL);
    run_case(DEVICE, "invalid-illegal-eventfd", illegal_eventfd, NULL);
    run_case(DEVICE, "invalid-bad-pad", bad_pad, NULL);

    run_case(DEVICE, "binary-wait", counted, &(struct variant){ 0, BEFORE_SIGNAL });
    run_case(DEVICE, "binary-wait-before-signal", counted, &(struct variant){ 0, BEFORE_SUBMISSION });
    run_case(DEVICE, "binary-wait-signaled", counted, &(struct variant){ 0, AFTER_SIGNAL });
    run_case(DEVICE, "timeline-wait", counted, &(struct variant){ 1, BEFORE_SIGNAL });
    run_case(DEVICE, "timeline-wait-before-signal", counted, &(struct variant){ 1, BEFORE_SUBMISSION });
    run_case(DEVICE, "timeline-wait-signaled", counted, &(struct variant){ 1, AFTER_SIGNAL });
    return finish();
}
