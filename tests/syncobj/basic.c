/* Making and destroying syncobjs, and their descriptors: the cases of IGT's syncobj_basic, and a few more. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "syncobj.h"
#include "tap.h"

enum { BAD = 0xdeadbeef };

static int look(int fd, uint32_t handle)
{
    return syncobj_wait(fd, &(struct wait){ .handles = &handle, .count = 1 });
}

static void bad_destroy(int fd, const struct variant *variant)
{
    GIVES(syncobj_destroy(fd, BAD, 0), -EINVAL);
    GIVES(syncobj_destroy(fd, 0, 0), -EINVAL);
}

static void bad_destroy_pad(int fd, const struct variant *variant)
{
    uint32_t handle = new_syncobj(fd);

    GIVES(syncobj_destroy(fd, handle, BAD), -EINVAL);
    GIVES(syncobj_destroy(fd, handle, 0), 0);
    GIVES(syncobj_destroy(fd, handle, 0), -EINVAL);
}

static void bad_create_flags(int fd, const struct variant *variant)
{
    uint32_t handle;

    GIVES(syncobj_create(fd, BAD, &handle), -EINVAL);
}

static void bad_handle_to_fd(int fd, const struct variant *variant)
{
    int number;

    GIVES(syncobj_to_fd(fd, BAD, 0, 0, 0, &number), -EINVAL);
}

static void bad_fd_to_handle(int fd, const struct variant *variant)
{
    uint32_t handle = 0;

    GIVES(syncobj_from_fd(fd, -1, 0, 0, 0, &handle), -EINVAL);
}

static void illegal_fd_to_handle(int fd, const struct variant *variant)
{
    uint32_t handle = 0;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    GIVES(syncobj_from_fd(fd, fd, 0, 0, 0, &handle), -EINVAL);
    GIVES(syncobj_from_fd(fd, null, 0, 0, 0, &handle), -EINVAL);
}

static void bad_flags_handle_to_fd(int fd, const struct variant *variant)
{
    int number;

    GIVES(syncobj_to_fd(fd, 0, BAD, 0, 0, &number), -EINVAL);
    GIVES(syncobj_to_fd(fd, new_syncobj(fd), BAD, 0, 0, &number), -EINVAL);
}

static void bad_flags_fd_to_handle(int fd, const struct variant *variant)
{
    uint32_t handle = 0;

    GIVES(syncobj_from_fd(fd, 0, BAD, 0, 0, &handle), -EINVAL);
}

static void bad_pad_handle_to_fd(int fd, const struct variant *variant)
{
    int number;

    GIVES(syncobj_to_fd(fd, 0, 0, BAD, 0, &number), -EINVAL);
    GIVES(syncobj_to_fd(fd, new_syncobj(fd), 0, BAD, 0, &number), -EINVAL);
}

static void bad_pad_fd_to_handle(int fd, const struct variant *variant)
{
    uint32_t handle = 0;

    GIVES(syncobj_from_fd(fd, 0, 0, BAD, 0, &handle), -EINVAL);
}

static void create_signaled(int fd, const struct variant *variant)
{
    uint32_t handle = new_signalled_syncobj(fd);

    GIVES(look(fd, handle), 0);
    GIVES(syncobj_destroy(fd, handle, 0), 0);
}

/* A descriptor's object gets a new handle at each import, and lives on by the descriptor alone. */
static void valid_cycle(int fd, const struct variant *variant)
{
    uint32_t first = new_syncobj(fd), second = 0, third = 0;
    int number;

    GIVES(syncobj_to_fd(fd, first, 0, 0, 0, &number), 0);
    GIVES(syncobj_from_fd(fd, number, 0, 0, 0, &second), 0);
    CHECK(first != second, "an import gave the handle %u once more", first);
    GIVES(syncobj_signal(fd, &second, 1, 0), 0);
    GIVES(look(fd, first), 0);
    GIVES(syncobj_destroy(fd, first, 0), 0);
    GIVES(syncobj_destroy(fd, second, 0), 0);
    GIVES(syncobj_from_fd(fd, number, 0, 0, 0, &third), 0);
    close(number);
    GIVES(look(fd, third), 0);
}

/* ---- not in IGT ---- */

static void export_of_no_fence(int fd, const struct variant *variant)
{
    int number;

    GIVES(syncobj_to_fd(fd, new_syncobj(fd), SYNCOBJ_SYNC_FILE, 0, 0, &number), -EINVAL);
    GIVES(syncobj_to_fd(fd, 0, SYNCOBJ_SYNC_FILE, 0, 0, &number), -ENOENT);
}

static void fds_of_the_wrong_kind(int fd, const struct variant *variant)
{
    uint32_t handle = new_signalled_syncobj(fd), other = handle;
    int object, fence;

    GIVES(syncobj_to_fd(fd, handle, 0, 0, 0, &object), 0);
    GIVES(syncobj_to_fd(fd, handle, SYNCOBJ_SYNC_FILE, 0, 0, &fence), 0);
    GIVES(syncobj_from_fd(fd, fence, 0, 0, 0, &other), -EINVAL);
    other = handle;
    GIVES(syncobj_from_fd(fd, object, SYNCOBJ_SYNC_FILE, 0, 0, &other), -EINVAL);
}

static void import_into_no_handle(int fd, const struct variant *variant)
{
    uint32_t none = BAD;
    int fence;

    GIVES(syncobj_to_fd(fd, new_signalled_syncobj(fd), SYNCOBJ_SYNC_FILE, 0, 0, &fence), 0);
    GIVES(syncobj_from_fd(fd, fence, SYNCOBJ_SYNC_FILE, 0, 0, &none), -ENOENT);
}

/* A sync file keeps the fence that the object had then. */
static void sync_file_is_a_copy(int fd, const struct variant *variant)
{
    uint32_t handle = new_syncobj(fd), other = new_syncobj(fd);
    int work = attach(fd, handle, 0), fence;

    GIVES(syncobj_to_fd(fd, handle, SYNCOBJ_SYNC_FILE, 0, 0, &fence), 0);
    GIVES(syncobj_reset(fd, &handle, 1, 0), 0);
    GIVES(syncobj_from_fd(fd, fence, SYNCOBJ_SYNC_FILE, 0, 0, &other), 0);
    GIVES(look(fd, handle), -EINVAL);
    GIVES(look(fd, other), -ETIME);
    advance(work, 1);
    GIVES(look(fd, other), 0);
}

static void handles_are_the_clients_own(int fd, const struct variant *variant)
{
    int second = open(DEVICE, O_RDWR | O_CLOEXEC), number;
    uint32_t handle = new_syncobj(fd), there = 0;

    GIVES(look(second, handle), -ENOENT);
    GIVES(syncobj_to_fd(fd, handle, 0, 0, 0, &number), 0);
    GIVES(syncobj_from_fd(second, number, 0, 0, 0, &there), 0);
    GIVES(syncobj_signal(second, &there, 1, 0), 0);
    GIVES(look(fd, handle), 0);
}

int main(void)
{
    static const struct {
        const char *name;
        case_function *run;
    } list[] = {
        { "bad-destroy", bad_destroy },
        { "bad-create-flags", bad_create_flags },
        { "bad-handle-to-fd", bad_handle_to_fd },
        { "bad-fd-to-handle", bad_fd_to_handle },
        { "bad-flags-handle-to-fd", bad_flags_handle_to_fd },
        { "bad-flags-fd-to-handle", bad_flags_fd_to_handle },
        { "bad-pad-handle-to-fd", bad_pad_handle_to_fd },
        { "bad-pad-fd-to-handle", bad_pad_fd_to_handle },
        { "illegal-fd-to-handle", illegal_fd_to_handle },
        { "bad-destroy-pad", bad_destroy_pad },
        { "create-signaled", create_signaled },
        { "test-valid-cycle", valid_cycle },
        { "export-of-no-fence", export_of_no_fence },
        { "fds-of-the-wrong-kind", fds_of_the_wrong_kind },
        { "import-into-no-handle", import_into_no_handle },
        { "sync-file-is-a-copy", sync_file_is_a_copy },
        { "handles-are-the-clients-own", handles_are_the_clients_own },
    };

    for (size_t i = 0; i < LEN(list); i++)
        run_case(DEVICE, list[i].name, list[i].run, NULL);
    return finish();
}
