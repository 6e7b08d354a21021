/* vkQueueBindSparse that binds nothing still waits for its semaphores and signals its semaphores and its
 * fence: the wirings of the CTS group sparse_resources.queue_bind. */
#include "vk.h"

static struct gpu gpu;

struct wiring {
    const char *name;
    uint32_t others; /* queues beside the sparse one, as far as there are */
    uint32_t waits, signals;
    bool no_info; /* a call with no VkBindSparseInfo at all */
    bool fence;
};

static const struct wiring wirings[] = {
    { "no_dependency", 0, 0, 0, false, false },
    { "no_dependency_fence", 0, 0, 0, false, true },
    { "single_queue_wait_one", 0, 1, 0, false, true },
    { "single_queue_wait_many", 0, 3, 0, false, true },
    { "single_queue_signal_one", 0, 0, 1, false, true },
    { "single_queue_signal_many", 0, 0, 3, false, true },
    { "single_queue_wait_one_signal_one", 0, 1, 1, false, true },
    { "single_queue_wait_many_signal_many", 0, 2, 3, false, true },
    { "multi_queue_wait_one", 1, 1, 0, false, true },
    { "multi_queue_wait_many", 1, 2, 0, false, true },
    { "multi_queue_signal_one", 1, 0, 1, false, true },
    { "multi_queue_signal_many", 1, 0, 2, false, true },
    { "multi_queue_wait_one_signal_one", 1, 1, 1, false, true },
    { "multi_queue_wait_many_signal_many", 1, 2, 2, false, true },
    { "multi_queue_wait_one_signal_one_other", 1, 1, 1, false, true },
    { "multi_queue_wait_many_signal_many_other", 2, 2, 2, false, true },
    { "empty", 0, 0, 0, true, false },
    { "empty_fence", 0, 0, 0, true, true },
};

/* The sparse queue after as many others as the wiring has, in turns. */
static const struct queue *queue_for(const struct wiring *wiring, uint32_t number)
{
    for (uint32_t i = 0, seen = 0; i < gpu.queue_count && seen < wiring->others; i++) {
        if (&gpu.queues[i] == gpu.sparse)
            continue;
        if (seen++ == number)
            return &gpu.queues[i];
    }
    return gpu.sparse;
}

static void run(const struct wiring *wiring, bool timelines)
{
    const VkBindSparseInfo nothing = { 0 };
    struct job bind = { .fence = wiring->fence ? fence_new(&gpu, false) : VK_NULL_HANDLE };
    VkFence fences[8];
    VkEvent go = event_new(&gpu); /* holds the jobs that the bind waits for */
    uint32_t count = 0;

    for (uint32_t i = 0; i < wiring->waits; i++) {
        bind.waits[i] = (struct point){ timelines ? timeline_new(&gpu, 0) : semaphore_new(&gpu), 7 };
        fences[count] = fence_new(&gpu, false);
        VK(queue_submit(queue_for(wiring, i),
                        &(struct job){ .commands = commands_held(&gpu, queue_for(wiring, i), go),
                                       .signals = { bind.waits[i] },
                                       .fence = fences[count++] }));
    }
    for (uint32_t i = 0; i < wiring->signals; i++)
        bind.signals[i] = (struct point){ timelines ? timeline_new(&gpu, 0) : semaphore_new(&gpu), 9 };
    if (wiring->no_info)
        VK(vkQueueBindSparse(gpu.sparse->handle, 0, NULL, bind.fence));
    else
        VK(queue_bind(gpu.sparse, &bind, &nothing));
    for (uint32_t i = 0; i < wiring->signals; i++) {
        fences[count] = fence_new(&gpu, false);
        VK(queue_submit(queue_for(wiring, i),
                        &(struct job){ .waits = { bind.signals[i] }, .fence = fences[count++] }));
    }

    if (wiring->waits && wiring->fence)
        RESULT(vkWaitForFences(gpu.device, 1, &bind.fence, true, SECOND / 200), VK_TIMEOUT);
    VK(vkSetEvent(gpu.device, go));
    if (wiring->fence)
        VK(vkWaitForFences(gpu.device, 1, &bind.fence, true, PATIENCE));
    if (count)
        VK(vkWaitForFences(gpu.device, count, fences, true, PATIENCE));
    VK(vkDeviceWaitIdle(gpu.device));
    verified("%s%s", wiring->name, timelines ? ", timelines" : "");

    vkDestroyEvent(gpu.device, go, NULL);
    vkDestroyFence(gpu.device, bind.fence, NULL);
    for (uint32_t i = 0; i < count; i++)
        vkDestroyFence(gpu.device, fences[i], NULL);
    for (uint32_t i = 0; i < wiring->waits; i++)
        vkDestroySemaphore(gpu.device, bind.waits[i].semaphore, NULL);
    for (uint32_t i = 0; i < wiring->signals; i++)
        vkDestroySemaphore(gpu.device, bind.signals[i].semaphore, NULL);
}

/* A timeline that only binds of nothing move: each waits for what the one before signals. */
static void binds_of_nothing_in_a_row(void)
{
    enum { COUNT = 50 };
    const VkBindSparseInfo nothing = { 0 };
    VkSemaphore timeline = timeline_new(&gpu, 0);

    for (uint64_t value = 1; value <= COUNT; value++)
        VK(queue_bind(
            gpu.sparse,
            &(struct job){ .waits = { { timeline, value } }, .signals = { { timeline, value + 1 } } },
            &nothing));
    EQUAL(timeline_value(&gpu, timeline), 0);
    timeline_signal(&gpu, timeline, 1);
    VK(timeline_wait(&gpu, timeline, COUNT + 1, PATIENCE));
    VK(vkQueueWaitIdle(gpu.sparse->handle));
    vkDestroySemaphore(gpu.device, timeline, NULL);
    verified("%d binds of nothing, each waiting for the one before", COUNT);
}

int main(void)
{
    gpu_open(&gpu, &(struct wish){
                       .features = { .sparseBinding = true }, .timeline = true, .synchronization2 = true });
    if (!gpu.sparse)
        lacks("a queue with VK_QUEUE_SPARSE_BINDING_BIT");
    for (int timelines = 0; timelines < 2; timelines++)
        for (size_t i = 0; i < LEN(wirings); i++)
            if (!timelines || wirings[i].waits || wirings[i].signals)
                run(&wirings[i], timelines);
    binds_of_nothing_in_a_row();
    gpu_close(&gpu);
    return 0;
}
