/* Fences: VK_NOT_READY and VK_TIMEOUT before the signal, success after it, reset, any and all of several. */
#include "vk.h"

#include <time.h>

static struct gpu gpu;
static VkSemaphore gate; /* nothing submitted here is done before the gate has the job's number */

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static void submit_behind_gate(uint64_t number, VkFence fence)
{
    VK(queue_submit(gpu.queue, &(struct job){ .waits = { { gate, number } }, .fence = fence }));
}

static VkResult wait_for(const VkFence *fences, uint32_t count, bool all, uint64_t timeout)
{
    return vkWaitForFences(gpu.device, count, fences, all, timeout);
}

static void one_fence(VkFence fence, uint64_t number)
{
    const uint64_t timeout = SECOND / 200;
    uint64_t begin;

    RESULT(vkGetFenceStatus(gpu.device, fence), VK_NOT_READY);
    submit_behind_gate(number, fence);
    RESULT(vkGetFenceStatus(gpu.device, fence), VK_NOT_READY);
    RESULT(wait_for(&fence, 1, true, 0), VK_TIMEOUT);
    begin = now();
    RESULT(wait_for(&fence, 1, true, timeout), VK_TIMEOUT);
    CHECK(now() - begin >= timeout, "a wait of %llu ns took %llu ns", (unsigned long long)timeout,
          (unsigned long long)(now() - begin));
    timeline_signal(&gpu, gate, number);
    VK(wait_for(&fence, 1, true, PATIENCE));
    VK(wait_for(&fence, 1, true, 0));
    VK(vkGetFenceStatus(gpu.device, fence));
    VK(vkResetFences(gpu.device, 1, &fence));
    RESULT(vkGetFenceStatus(gpu.device, fence), VK_NOT_READY);
}

static void created_signalled(void)
{
    VkFence fence = fence_new(&gpu, true);

    VK(wait_for(&fence, 1, true, 0));
    VK(vkResetFences(gpu.device, 1, &fence));
    RESULT(wait_for(&fence, 1, true, 0), VK_TIMEOUT);
    vkDestroyFence(gpu.device, fence, NULL);
    verified("a fence that is created signalled, and reset");
}

static void any_and_all(uint64_t number)
{
    VkFence fences[4];

    for (uint32_t i = 0; i < 4; i++) {
        fences[i] = fence_new(&gpu, false);
        submit_behind_gate(number + i, fences[i]);
    }
    RESULT(wait_for(fences, 4, false, 0), VK_TIMEOUT);
    timeline_signal(&gpu, gate, number);
    VK(wait_for(fences, 4, false, PATIENCE));
    VK(vkGetFenceStatus(gpu.device, fences[0]));
    RESULT(vkGetFenceStatus(gpu.device, fences[3]), VK_NOT_READY);
    RESULT(wait_for(fences, 4, true, 0), VK_TIMEOUT);
    timeline_signal(&gpu, gate, number + 3);
    VK(wait_for(fences, 4, true, PATIENCE));
    VK(vkResetFences(gpu.device, 4, fences));
    for (uint32_t i = 0; i < 4; i++) {
        RESULT(vkGetFenceStatus(gpu.device, fences[i]), VK_NOT_READY);
        vkDestroyFence(gpu.device, fences[i], NULL);
    }
    verified("any and all of four fences");
}

/* The fence of a submission without jobs is for all that was submitted to the queue before. */
static void nothing_submitted(uint64_t number)
{
    VkFence fence = fence_new(&gpu, false);

    VK(vkQueueSubmit(gpu.queue->handle, 0, NULL, fence));
    VK(wait_for(&fence, 1, true, PATIENCE));
    VK(vkResetFences(gpu.device, 1, &fence));
    submit_behind_gate(number, VK_NULL_HANDLE);
    VK(vkQueueSubmit(gpu.queue->handle, 0, NULL, fence));
    RESULT(wait_for(&fence, 1, true, SECOND / 200), VK_TIMEOUT);
    timeline_signal(&gpu, gate, number);
    VK(wait_for(&fence, 1, true, PATIENCE));
    vkDestroyFence(gpu.device, fence, NULL);
    verified("a submission of nothing signals its fence, after what was submitted before");
}

int main(void)
{
    VkFence fence;

    gpu_open(&gpu, &(struct wish){ .timeline = true, .synchronization2 = true });
    gate = timeline_new(&gpu, 0);
    fence = fence_new(&gpu, false);
    for (uint64_t number = 1; number <= 3; number++)
        one_fence(fence, number);
    vkDestroyFence(gpu.device, fence, NULL);
    verified("a fence: not ready, timeout, signalled, reset; three times over");
    created_signalled();
    any_and_all(10);
    nothing_submitted(20);
    vkDestroySemaphore(gpu.device, gate, NULL);
    gpu_close(&gpu);
    return 0;
}
