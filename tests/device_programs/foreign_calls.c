// ioctls by other doors: 32-bit calls and x32's come from other tables, and are not caught.
#include "toy.h"

int main(void)
{
    errno = 0;
    CHECK(syscall(0x40000000 | 514, -1, _IO('d', 1), 1) == -1 && (errno == ENOSYS || errno == EBADF));
    CHECK(syscall(0x40000000 | SYS_ioctl, -1, _IO('d', 1), 1) == -1 && (errno == ENOSYS || errno == EBADF));
    pid_t child = fork();
    if (child == 0) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(54L), "b"(-1L), "c"((long)_IO('d', 1)), "d"(1L) : "memory");
        _exit(result == -EBADF || result == -ENOSYS ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(status == 0 || WTERMSIG(status) == SIGSEGV); // a kernel without 32-bit calls
    CHECK(count(1) == 0);
    return 0;
}
