/* Binds and executes until it is killed; a line for every hundred frames. With an argument: so many frames. */
#include "nouveau.h"

int main(int argc, char **argv)
{
    long most = argc > 1 ? atol(argv[1]) : -1;
    int fd = open_node();
    struct vm_init init = {.addr = 1ull << 46, .size = 1ull << 46};
    MUST(ioctl(fd, VM_INIT, &init));
    struct channel_alloc alloc = {.tt = 1};
    MUST(ioctl(fd, CHANNEL_ALLOC, &alloc));
    struct gem_new new = {.info = {.domain = 2, .size = 65536}};
    MUST(ioctl(fd, GEM_NEW, &new));
    for (long frame = 1; frame != most + 1; frame++) {
        struct bind_op op = {.op = 0, .handle = new.info.handle, .addr = 1ull << 32, .range = 65536};
        struct vm_bind bind = {.ops = 1, .op_ptr = (uintptr_t)&op};
        MUST(ioctl(fd, VM_BIND, &bind));
        struct exec exec = {.channel = (uint32_t)alloc.channel};
        MUST(ioctl(fd, EXEC, &exec));
        op.op = 1;
        op.handle = 0;
        MUST(ioctl(fd, VM_BIND, &bind));
        if (frame % 100 == 0) {
            printf("%ld\n", frame);
            fflush(stdout);
        }
    }
    return 0;
}
