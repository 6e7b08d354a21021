/* Threads of one client hand a timeline around, while each makes and frees objects that get the same handles. */
#include <pthread.h>

#include "nouveau.h"

#define THREADS 4
#define SYNCOBJ_TIMELINE_WAIT _IOWR('d', 0xca, struct timeline_wait)
#define SYNCOBJ_TIMELINE_SIGNAL _IOWR('d', 0xcd, struct timeline_array)

struct timeline_wait {
    uint64_t handles, points;
    int64_t timeout;
    uint32_t count, flags, first, pad;
    uint64_t deadline;
};
struct timeline_array {
    uint64_t handles, points;
    uint32_t count, flags;
};

static int fd, rounds;
static uint32_t timeline;

static void wait_for(uint64_t point)
{
    struct timeline_wait wait = {(uintptr_t)&timeline, (uintptr_t)&point, FOREVER, 1, 2, 0, 0, 0};
    MUST(ioctl(fd, SYNCOBJ_TIMELINE_WAIT, &wait));
}

static void reach(uint64_t point)
{
    struct timeline_array signal = {(uintptr_t)&timeline, (uintptr_t)&point, 1, 0};
    MUST(ioctl(fd, SYNCOBJ_TIMELINE_SIGNAL, &signal));
}

static void *play(void *argument)
{
    uint64_t me = (uintptr_t)argument;
    for (int i = 0; i < rounds; i++) {
        struct gem_info object = gem_new(fd, 65536);
        bind_object(fd, (me + 1) << 32, object);
        struct drm_handle handle = {.handle = object.handle}, mine = {.handle = syncobj_create(fd, 1)};
        MUST(syncobj_wait(fd, mine.handle, FOREVER));
        if (i % 8 == 0) {
            wait_for(i / 8 * THREADS + me);
            reach(i / 8 * THREADS + me + 1);
        }
        MUST(ioctl(fd, SYNCOBJ_DESTROY, &mine));
        MUST(ioctl(fd, GEM_CLOSE, &handle));
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    rounds = argc > 1 ? atoi(argv[1]) : 32;
    fd = open_node();
    vm_init(fd);
    timeline = syncobj_create(fd, 1);
    for (uintptr_t i = 0; i < THREADS; i++)
        MUST(-pthread_create(&threads[i], NULL, play, (void *)i));
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("%d rounds\n", rounds);
    return 0;
}
