// What no ordinary program does, and what gpuvm and others of its programs have to live with.
#include "node.h"
#include <grp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

// Nobody can open the file that descriptors of the node are of; and no descriptor is the working directory.
static void mode(void)
{
    int fd = open_as(O_RDWR);
    CHECK(fchmod(fd, 0) == 0);
    CHECK(works(open_as(O_RDWR)));
    struct stat status;
    CHECK(fstatat(AT_FDCWD, "", &status, AT_EMPTY_PATH) == 0 && S_ISDIR(status.st_mode));
}

// Nobody may look at it: /proc/PID/fd is root's.
static void hidden(void)
{
    int fd = open_as(O_RDWR);
    CHECK(prctl(PR_SET_DUMPABLE, 0) == 0);
    CHECK(works(fd) && works(open_as(O_RDWR)));
    syncobj_create(fd, 0);
}

static void on_alarm(int number)
{
    (void)number;
}

// Its /proc/PID/status is 720 kB long.
static void groups(void)
{
    static gid_t groups[65536];
    for (int i = 0; i < 65536; i++)
        groups[i] = 1000000000u + 2 * i;
    CHECK(setgroups(65536, groups) == 0);
    struct sigaction action = {.sa_handler = on_alarm};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    int fd = open_as(O_RDWR);
    uint32_t handle = syncobj_create(fd, 0);
    alarm(1);
    CHECK(wait_for(fd, handle, FOREVER) == -1 && errno == EINTR);
}

// A file of ours is sent over itself: it would be kept by what is never received.
static void keep(void)
{
    int fd = open_as(O_RDWR);
    struct syncobj_fd out = {.handle = syncobj_create(fd, 1)};
    CHECK(ioctl(fd, SYNCOBJ_HANDLE_TO_FD, &out) == 0);
    char control[CMSG_SPACE(sizeof fd)] = {0}, byte = 'x';
    struct iovec data = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &out.fd, sizeof fd);
    CHECK(sendmsg(out.fd, &message, MSG_NOSIGNAL) == -1 && errno == EPIPE);
}

// A structure on a page that somebody else brings, later than ever.
static void page(void)
{
    int from = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API};
    if (from < 0 || ioctl(from, UFFDIO_API, &api)) {
        printf("no userfaultfd\n");
        return;
    }
    char *bytes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register asked = {
        .range = {(uintptr_t)bytes, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    CHECK(ioctl(from, UFFDIO_REGISTER, &asked) == 0);
    int fd = open_as(O_RDWR);
    pid_t caller = fork();
    if (!caller) {
        // The registration stays with the parent: this one's memory is as any other.
        struct uffd_msg message;
        while (read(from, &message, sizeof message) != sizeof message)
            sched_yield(); // somebody reads the structure by now
        CHECK(works(open_as(O_RDWR)));
        struct uffdio_zeropage zero = {.range = {(uintptr_t)bytes, 4096}};
        CHECK(ioctl(from, UFFDIO_ZEROPAGE, &zero) == 0);
        _exit(0);
    }
    CHECK(ioctl(fd, GETPARAM, bytes) == -1 && errno == EINVAL);
    int status;
    CHECK(waitpid(caller, &status, 0) == caller && status == 0);
}

// A name that is no text, and the first child left alone.
static void name(void)
{
    CHECK(prctl(PR_SET_NAME, "\xff) \33[31mR") == 0);
    if (fork())
        return;
    char byte;
    CHECK(read(0, &byte, 1) == 0);
    CHECK(works(open_as(O_RDWR)));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *what;
        void (*does)(void);
    } all[] = {{"mode", mode}, {"hidden", hidden}, {"groups", groups}, {"keep", keep}, {"page", page}, {"name", name}};
    for (unsigned i = 0; argc > 1 && i < sizeof all / sizeof *all; i++)
        if (!strcmp(argv[1], all[i].what)) {
            all[i].does();
            return 0;
        }
    return 2;
}
