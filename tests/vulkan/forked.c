/* Children forked from a process that has a device: each opens its own; the parent's is not touched by what
 * they do, nor by their end. */
#include "vk.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (128 * KIB)

enum { CHILDREN = 3 };

struct job_buffers {
    struct buffer from, between, to;
};

static struct job_buffers buffers_new(const struct gpu *gpu, uint32_t seed)
{
    struct job_buffers buffers = { buffer_new(gpu, SIZE, HOST), buffer_new(gpu, SIZE, LOCAL),
                                   buffer_new(gpu, SIZE, HOST) };

    pattern(buffers.from.bytes, SIZE, seed, 0);
    copy_now(gpu, buffers.from.handle, 0, buffers.between.handle, 0, SIZE);
    memset(buffers.to.bytes, 0, SIZE);
    return buffers;
}

static void check_and_free(const struct gpu *gpu, struct job_buffers *buffers, const char *whose)
{
    copy_now(gpu, buffers->between.handle, 0, buffers->to.handle, 0, SIZE);
    SAME(buffers->to.bytes, buffers->from.bytes, SIZE, "the memory of %s", whose);
    buffer_free(gpu, &buffers->from);
    buffer_free(gpu, &buffers->between);
    buffer_free(gpu, &buffers->to);
}

static void child(uint32_t number, bool dies)
{
    struct gpu gpu;
    struct job_buffers buffers;

    gpu_open(&gpu, NULL);
    buffers = buffers_new(&gpu, 100 + number);
    if (dies)
        kill(getpid(), SIGKILL); /* with everything open */
    check_and_free(&gpu, &buffers, "the child");
    gpu_close(&gpu);
}

int main(void)
{
    struct gpu gpu;
    struct job_buffers buffers;
    pid_t children[CHILDREN];

    gpu_open(&gpu, NULL);
    buffers = buffers_new(&gpu, 99);
    fflush(stdout);
    for (uint32_t i = 0; i < CHILDREN; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0, "fork");
        if (children[i] == 0) {
            child(i, i == 1);
            _exit(0); /* what the parent has open is not the child's to give back */
        }
    }
    for (uint32_t i = 0; i < CHILDREN; i++) {
        int status, killed = i == 1 ? SIGKILL : 0;

        CHECK(waitpid(children[i], &status, 0) == children[i], "waitpid");
        EQUAL(WIFSIGNALED(status) ? WTERMSIG(status) : 0, killed);
        EQUAL(killed ? 0 : WEXITSTATUS(status), 0);
    }
    verified("%d forked children with devices of their own, one killed", CHILDREN);
    check_and_free(&gpu, &buffers, "the parent");
    buffers = buffers_new(&gpu, 98);
    check_and_free(&gpu, &buffers, "the parent");
    gpu_close(&gpu);
    verified("the parent's device goes on");
    return 0;
}
