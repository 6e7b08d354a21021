/* Jobs that wait for values which are signalled only after the submission: wait before signal. */
#include "vk.h"

#include <pthread.h>
#include <string.h>

#define SIZE (64 * KIB)

static struct gpu gpu;

/* The job's copy happens after the host's signal, not before, and its own signal after the copy. */
static void host_opens(void)
{
    struct buffer from = buffer_new(&gpu, SIZE, HOST), to = buffer_new(&gpu, SIZE, HOST);
    VkSemaphore timeline = timeline_new(&gpu, 0);
    VkFence fence = fence_new(&gpu, false);
    VkCommandBuffer commands = commands_begin(&gpu);

    memset(to.bytes, 0, SIZE);
    vkCmdCopyBuffer(commands, from.handle, to.handle, 1, &(VkBufferCopy){ 0, 0, SIZE });
    commands_barrier(commands);
    VK(queue_submit(gpu.queue, &(struct job){ .commands = commands,
                                              .waits = { { timeline, 5 } },
                                              .signals = { { timeline, 6 } },
                                              .fence = fence }));
    EQUAL(timeline_value(&gpu, timeline), 0);
    timeline_signal(&gpu, timeline, 4);
    RESULT(timeline_wait(&gpu, timeline, 6, SECOND / 100), VK_TIMEOUT);
    RESULT(vkGetFenceStatus(gpu.device, fence), VK_NOT_READY);
    EQUAL(timeline_value(&gpu, timeline), 4);
    ZERO(to.bytes, SIZE, "what the job copies to before it may");

    pattern(from.bytes, SIZE, 1, 0); /* the job sees what is written before the signal */
    timeline_signal(&gpu, timeline, 5);
    VK(timeline_wait(&gpu, timeline, 6, PATIENCE));
    EQUAL(timeline_value(&gpu, timeline), 6);
    SAME(to.bytes, from.bytes, SIZE, "the job's copy");
    VK(vkWaitForFences(gpu.device, 1, &fence, true, PATIENCE));
    verified("a job waits for the host's signal, and copies what the host wrote before it");

    vkDestroyFence(gpu.device, fence, NULL);
    vkDestroySemaphore(gpu.device, timeline, NULL);
    buffer_free(&gpu, &from);
    buffer_free(&gpu, &to);
}

/* The host and the queue hand one buffer to and fro, a value a step; all jobs are submitted at first. */
static void ping_pong(void)
{
    enum { ROUNDS = 16 };
    struct buffer ping = buffer_new(&gpu, SIZE, HOST), pong = buffer_new(&gpu, SIZE, HOST);
    VkSemaphore timeline = timeline_new(&gpu, 0);

    for (uint64_t round = 0; round < ROUNDS; round++) {
        VkCommandBuffer commands = commands_begin(&gpu);

        vkCmdCopyBuffer(commands, ping.handle, pong.handle, 1, &(VkBufferCopy){ 0, 0, SIZE });
        commands_barrier(commands);
        VK(queue_submit(gpu.queue, &(struct job){ .commands = commands,
                                                  .waits = { { timeline, 2 * round + 1 } },
                                                  .signals = { { timeline, 2 * round + 2 } } }));
    }
    for (uint64_t round = 0; round < ROUNDS; round++) {
        EQUAL(timeline_value(&gpu, timeline), 2 * round);
        pattern(ping.bytes, SIZE, 100 + (uint32_t)round, 0);
        timeline_signal(&gpu, timeline, 2 * round + 1);
        VK(timeline_wait(&gpu, timeline, 2 * round + 2, PATIENCE));
        SAME(pong.bytes, ping.bytes, SIZE, "the copy of round %llu", (unsigned long long)round);
    }
    VK(vkDeviceWaitIdle(gpu.device));
    verified("host and queue in turns, %d jobs submitted beforehand", ROUNDS);
    vkDestroySemaphore(gpu.device, timeline, NULL);
    buffer_free(&gpu, &ping);
    buffer_free(&gpu, &pong);
}

struct submitter {
    const struct queue *queue;
    VkSemaphore mine, others;
    uint64_t ahead; /* what `mine` began with */
};

static void *submit_in_thread(void *argument)
{
    const struct submitter *submitter = argument;

    for (uint64_t value = 1; value <= 50; value++)
        VK(queue_submit(submitter->queue,
                        &(struct job){ .waits = { { submitter->others, value } },
                                       .signals = { { submitter->mine, value + submitter->ahead } } }));
    return NULL;
}

/* Each queue waits for the value that the other signals with its job before, a thread a queue. */
static void two_queues(void)
{
    VkSemaphore timelines[2];
    struct submitter submitters[2];
    pthread_t threads[2];

    if (gpu.queue_count < 2) {
        verified("(there is one queue: no two that wait for each other)");
        return;
    }
    for (uint64_t i = 0; i < 2; i++)
        timelines[i] = timeline_new(&gpu, i);
    submitters[0] = (struct submitter){ &gpu.queues[0], timelines[0], timelines[1], 0 };
    submitters[1] = (struct submitter){ &gpu.queues[1], timelines[1], timelines[0], 1 };
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, submit_in_thread, &submitters[i]) == 0, "pthread_create");
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    VK(timeline_wait(&gpu, timelines[0], 50, PATIENCE));
    VK(vkDeviceWaitIdle(gpu.device));
    verified("two queues that wait for each other, 50 jobs each");
    for (int i = 0; i < 2; i++)
        vkDestroySemaphore(gpu.device, timelines[i], NULL);
}

int main(void)
{
    gpu_open(&gpu, &(struct wish){ .timeline = true, .synchronization2 = true });
    host_opens();
    ping_pong();
    two_queues();
    gpu_close(&gpu);
    return 0;
}
