/* Binary semaphores: a long chain of jobs over all queues, and jobs that signal and wait for many. */
#include "vk.h"

#include <string.h>

#define SIZE (64 * KIB)

enum { LINKS = 40, WIDTH = 12 };

static struct gpu gpu;

static const struct queue *turn(uint32_t number)
{
    return &gpu.queues[number % gpu.queue_count];
}

static VkCommandBuffer copy(VkCommandBuffer commands, const struct buffer *from, VkDeviceSize from_offset,
                            const struct buffer *to, VkDeviceSize to_offset, VkDeviceSize size)
{
    vkCmdCopyBuffer(commands, from->handle, to->handle, 1, &(VkBufferCopy){ from_offset, to_offset, size });
    commands_barrier(commands);
    return commands;
}

/* Each job copies one buffer to the next; the event holds the first until all are submitted. */
static void chain(void)
{
    struct buffer buffers[LINKS + 1];
    VkSemaphore semaphores[LINKS];
    VkFence fence = fence_new(&gpu, false);
    VkEvent go = event_new(&gpu);

    for (uint32_t i = 0; i <= LINKS; i++)
        buffers[i] = buffer_new(&gpu, SIZE, i == 0 || i == LINKS ? HOST : LOCAL);
    pattern(buffers[0].bytes, SIZE, 3, 0);
    memset(buffers[LINKS].bytes, 0, SIZE);
    for (uint32_t i = 0; i < LINKS; i++) {
        struct job job = { .commands = i ? commands_for(&gpu, turn(i)) : commands_held(&gpu, turn(0), go),
                           .waits = { { i ? semaphores[i - 1] : VK_NULL_HANDLE, 0 } },
                           .signals = { { semaphores[i] = semaphore_new(&gpu), 0 } },
                           .fence = i == LINKS - 1 ? fence : VK_NULL_HANDLE };

        copy(job.commands, &buffers[i], 0, &buffers[i + 1], 0, SIZE);
        VK(queue_submit(turn(i), &job));
    }
    RESULT(vkWaitForFences(gpu.device, 1, &fence, true, SECOND / 100), VK_TIMEOUT);
    ZERO(buffers[LINKS].bytes, SIZE, "the last buffer before the chain begins");
    VK(vkSetEvent(gpu.device, go));
    VK(vkWaitForFences(gpu.device, 1, &fence, true, PATIENCE));
    SAME(buffers[LINKS].bytes, buffers[0].bytes, SIZE, "what came through the chain");
    verified("a chain of %d jobs on %u queues", LINKS, gpu.queue_count);

    /* The last semaphore is still signalled: who waits for it takes the signal away. */
    for (int again = 0; again < 3; again++) {
        VK(queue_submit(turn(0), &(struct job){ .waits = { { semaphores[LINKS - 1], 0 } },
                                                .signals = { { semaphores[0], 0 } } }));
        VK(queue_submit(turn(1), &(struct job){ .waits = { { semaphores[0], 0 } },
                                                .signals = { { semaphores[LINKS - 1], 0 } } }));
    }
    VK(vkDeviceWaitIdle(gpu.device));
    verified("semaphores that are used again");

    vkDestroyEvent(gpu.device, go, NULL);
    vkDestroyFence(gpu.device, fence, NULL);
    for (uint32_t i = 0; i < LINKS; i++)
        vkDestroySemaphore(gpu.device, semaphores[i], NULL);
    for (uint32_t i = 0; i <= LINKS; i++)
        buffer_free(&gpu, &buffers[i]);
}

/* One job signals many, each lets a job copy its part on, and one job waits for all of these. */
static void fan(void)
{
    const VkDeviceSize part = SIZE / WIDTH & ~3ull, size = part * WIDTH;
    struct buffer from = buffer_new(&gpu, SIZE, HOST), between = buffer_new(&gpu, SIZE, LOCAL),
                  joined = buffer_new(&gpu, SIZE, LOCAL), to = buffer_new(&gpu, SIZE, HOST);
    struct job first = { .commands = copy(commands_for(&gpu, turn(0)), &from, 0, &between, 0, size) },
               last = { .commands = copy(commands_for(&gpu, turn(1)), &joined, 0, &to, 0, size),
                        .fence = fence_new(&gpu, false) };

    pattern(from.bytes, SIZE, 4, 0);
    for (uint32_t i = 0; i < WIDTH; i++) {
        first.signals[i].semaphore = semaphore_new(&gpu);
        last.waits[i].semaphore = semaphore_new(&gpu);
    }
    VK(queue_submit(turn(0), &first));
    for (uint32_t i = 0; i < WIDTH; i++)
        VK(queue_submit(turn(i), &(struct job){ .commands = copy(commands_for(&gpu, turn(i)), &between,
                                                                 i * part, &joined, i * part, part),
                                                .waits = { first.signals[i] },
                                                .signals = { last.waits[i] } }));
    VK(queue_submit(turn(1), &last));
    VK(vkWaitForFences(gpu.device, 1, &last.fence, true, PATIENCE));
    SAME(to.bytes, from.bytes, size, "the parts joined again");
    verified("a job that signals %d semaphores and one that waits for %d", WIDTH, WIDTH);

    vkDestroyFence(gpu.device, last.fence, NULL);
    for (uint32_t i = 0; i < WIDTH; i++) {
        vkDestroySemaphore(gpu.device, first.signals[i].semaphore, NULL);
        vkDestroySemaphore(gpu.device, last.waits[i].semaphore, NULL);
    }
    buffer_free(&gpu, &from);
    buffer_free(&gpu, &between);
    buffer_free(&gpu, &joined);
    buffer_free(&gpu, &to);
}

int main(void)
{
    gpu_open(&gpu, &(struct wish){ .synchronization2 = true });
    chain();
    fan();
    gpu_close(&gpu);
    return 0;
}
