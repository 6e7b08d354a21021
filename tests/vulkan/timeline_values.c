/* A timeline semaphore's value, and the host's waits for it: any, all, timeouts, another thread's signal. */
#include "vk.h"

#include <pthread.h>

static struct gpu gpu;

static VkResult wait_several(const VkSemaphore *timelines, const uint64_t *values, uint32_t count, bool any,
                             uint64_t timeout)
{
    return vkWaitSemaphores(gpu.device,
                            &(VkSemaphoreWaitInfo){ .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                                    .flags = any ? VK_SEMAPHORE_WAIT_ANY_BIT : 0,
                                                    .semaphoreCount = count,
                                                    .pSemaphores = timelines,
                                                    .pValues = values },
                            timeout);
}

static void host_signals(void)
{
    static const uint64_t values[] = {
        6, 7, 1000, (1ull << 31) - 1, 1ull << 31, (1ull << 32) + 5, 1ull << 62
    };
    VkSemaphore timeline = timeline_new(&gpu, 5);

    EQUAL(timeline_value(&gpu, timeline), 5);
    VK(timeline_wait(&gpu, timeline, 0, 0));
    VK(timeline_wait(&gpu, timeline, 5, 0));
    for (size_t i = 0; i < LEN(values); i++) {
        RESULT(timeline_wait(&gpu, timeline, values[i], 0), VK_TIMEOUT);
        timeline_signal(&gpu, timeline, values[i]);
        EQUAL(timeline_value(&gpu, timeline), values[i]);
        VK(timeline_wait(&gpu, timeline, values[i], 0));
        VK(timeline_wait(&gpu, timeline, values[i] - 1, UINT64_MAX));
        RESULT(timeline_wait(&gpu, timeline, values[i] + 1, SECOND / 500), VK_TIMEOUT);
    }
    vkDestroySemaphore(gpu.device, timeline, NULL);
    verified("values that the host signals, up to 2^62");
}

static void queue_signals(void)
{
    VkSemaphore timeline = timeline_new(&gpu, 0);

    for (uint64_t value = 1; value <= 64; value *= 2)
        VK(queue_submit(gpu.queue, &(struct job){ .signals = { { timeline, value } } }));
    VK(timeline_wait(&gpu, timeline, 64, PATIENCE));
    EQUAL(timeline_value(&gpu, timeline), 64);
    VK(timeline_wait(&gpu, timeline, 63, 0)); /* a value that nobody signalled, but it was passed */
    timeline_signal(&gpu, timeline, 70);
    VK(queue_submit(gpu.queue,
                    &(struct job){ .waits = { { timeline, 69 } }, .signals = { { timeline, 71 } } }));
    VK(timeline_wait(&gpu, timeline, 71, PATIENCE));
    vkDestroySemaphore(gpu.device, timeline, NULL);
    verified("values that a queue signals, and host and queue in turns");
}

static void any_and_all(void)
{
    VkSemaphore timelines[3];
    uint64_t values[3] = { 3, 5, 7 };

    for (int i = 0; i < 3; i++)
        timelines[i] = timeline_new(&gpu, 2);
    RESULT(wait_several(timelines, values, 3, true, 0), VK_TIMEOUT);
    timeline_signal(&gpu, timelines[1], 5);
    VK(wait_several(timelines, values, 3, true, 0));
    RESULT(wait_several(timelines, values, 3, false, SECOND / 500), VK_TIMEOUT);
    timeline_signal(&gpu, timelines[2], 8);
    RESULT(wait_several(timelines, values, 3, false, 0), VK_TIMEOUT);
    VK(queue_submit(gpu.queue, &(struct job){ .signals = { { timelines[0], 3 } } }));
    VK(wait_several(timelines, values, 3, false, PATIENCE));
    for (int i = 0; i < 3; i++)
        vkDestroySemaphore(gpu.device, timelines[i], NULL);
    verified("any and all of three timelines");
}

struct waiter {
    VkSemaphore timelines[3];
    uint64_t values[3];
    bool any;
    VkResult result;
};

static void *wait_in_thread(void *argument)
{
    struct waiter *waiter = argument;

    waiter->result = wait_several(waiter->timelines, waiter->values, 3, waiter->any, PATIENCE);
    return NULL;
}

/* Threads begin to wait before or after the signal, as it happens: it must not matter. */
static void signals_during_waits(void)
{
    struct waiter waiters[8];
    pthread_t threads[8];
    VkSemaphore timelines[3];

    for (int i = 0; i < 3; i++)
        timelines[i] = timeline_new(&gpu, 0);
    for (uint64_t round = 1; round <= 20; round++) {
        for (int i = 0; i < 8; i++) {
            waiters[i] = (struct waiter){
                { timelines[0], timelines[1], timelines[2] }, { round, round, round }, i % 2, VK_NOT_READY
            };
            CHECK(pthread_create(&threads[i], NULL, wait_in_thread, &waiters[i]) == 0, "pthread_create");
        }
        for (int i = 0; i < 3; i++)
            if (i == 1)
                VK(queue_submit(gpu.queue, &(struct job){ .signals = { { timelines[i], round } } }));
            else
                timeline_signal(&gpu, timelines[i], round);
        for (int i = 0; i < 8; i++) {
            pthread_join(threads[i], NULL);
            VK(waiters[i].result);
        }
    }
    VK(vkDeviceWaitIdle(gpu.device));
    for (int i = 0; i < 3; i++)
        vkDestroySemaphore(gpu.device, timelines[i], NULL);
    verified("eight threads wait for three timelines while they are signalled");
}

int main(void)
{
    gpu_open(&gpu, &(struct wish){ .timeline = true, .synchronization2 = true });
    host_signals();
    queue_signals();
    any_and_all();
    signals_during_waits();
    gpu_close(&gpu);
    return 0;
}
