/* A job that uses memory which was freed, or which was never bound: the device is lost, every call says so
 * and none hangs; another device of the process goes on, and a new one can be opened. */
#include "vk.h"

#include <string.h>

#define SIZE (256 * KIB)

static const struct wish wish = { .features = { .sparseBinding = true },
                                  .timeline = true,
                                  .synchronization2 = true };

static void success_or_lost(VkResult result, const char *call)
{
    CHECK(result == VK_SUCCESS || result == VK_ERROR_DEVICE_LOST, "%s: %s", call, result_name(result));
}

/* Submits a copy from a buffer without memory: it has gone, or the buffer, which is sparse, never had any. */
static void fault(struct gpu *gpu, bool sparse, VkSemaphore timeline)
{
    struct buffer from =
        sparse ? buffer_sparse(gpu, SIZE, VK_BUFFER_CREATE_SPARSE_BINDING_BIT) : buffer_new(gpu, SIZE, LOCAL);
    struct buffer to = buffer_new(gpu, SIZE, HOST);
    VkCommandBuffer commands = commands_begin(gpu);
    VkFence fence = fence_new(gpu, false);

    vkFreeMemory(gpu->device, from.memory, NULL);
    vkCmdCopyBuffer(commands, from.handle, to.handle, 1, &(VkBufferCopy){ 0, 0, SIZE });
    success_or_lost(
        queue_submit(gpu->queue,
                     &(struct job){ .commands = commands, .signals = { { timeline, 1 } }, .fence = fence }),
        "the submission of the job that faults");
    success_or_lost(vkWaitForFences(gpu->device, 1, &fence, true, PATIENCE), "the wait for its fence");
    vkDestroyFence(gpu->device, fence, NULL);
    vkDestroyBuffer(gpu->device, from.handle, NULL);
    buffer_free(gpu, &to);
}

static void everything_says_lost(struct gpu *gpu, VkSemaphore timeline)
{
    VkFence fence = fence_new(gpu, false);
    VkCommandBuffer commands = commands_begin(gpu);
    uint64_t value;

    RESULT(queue_submit(gpu->queue, &(struct job){ .commands = commands, .fence = fence }),
           VK_ERROR_DEVICE_LOST);
    RESULT(queue_submit(gpu->queue, &(struct job){ .fence = fence }), VK_ERROR_DEVICE_LOST);
    RESULT(vkWaitForFences(gpu->device, 1, &fence, true, PATIENCE), VK_ERROR_DEVICE_LOST);
    RESULT(vkGetFenceStatus(gpu->device, fence), VK_ERROR_DEVICE_LOST);
    RESULT(timeline_wait(gpu, timeline, 2, PATIENCE), VK_ERROR_DEVICE_LOST);
    RESULT(vkGetSemaphoreCounterValue(gpu->device, timeline, &value), VK_ERROR_DEVICE_LOST);
    RESULT(vkQueueWaitIdle(gpu->queue->handle), VK_ERROR_DEVICE_LOST);
    RESULT(vkDeviceWaitIdle(gpu->device), VK_ERROR_DEVICE_LOST);
    vkDestroyFence(gpu->device, fence, NULL);
}

static void works(struct gpu *gpu, const struct buffer *from, const struct buffer *to, uint32_t seed)
{
    pattern(from->bytes, SIZE, seed, 0);
    memset(to->bytes, 0, SIZE);
    copy_now(gpu, from->handle, 0, to->handle, 0, SIZE);
    SAME(to->bytes, from->bytes, SIZE, "the copy of a device that is not lost");
}

static void lose(bool sparse)
{
    struct gpu gpu;
    VkSemaphore timeline;

    gpu_open(&gpu, &wish);
    timeline = timeline_new(&gpu, 0);
    fault(&gpu, sparse, timeline);
    everything_says_lost(&gpu, timeline);
    verified("submissions, waits and queries say VK_ERROR_DEVICE_LOST after the use of %s",
             sparse ? "a sparse buffer that is not bound" : "memory that was freed");
    vkDestroySemaphore(gpu.device, timeline, NULL);
    gpu_close(&gpu);
}

int main(void)
{
    struct gpu other, fresh;
    struct buffer from, to;

    gpu_open(&other, &wish);
    from = buffer_new(&other, SIZE, HOST);
    to = buffer_new(&other, SIZE, HOST);
    works(&other, &from, &to, 1);
    lose(false);
    works(&other, &from, &to, 2);
    lose(true);
    works(&other, &from, &to, 3);
    verified("another device goes on");
    buffer_free(&other, &from);
    buffer_free(&other, &to);

    gpu_open(&fresh, &wish);
    from = buffer_new(&fresh, SIZE, HOST);
    to = buffer_new(&fresh, SIZE, HOST);
    works(&fresh, &from, &to, 4);
    buffer_free(&fresh, &from);
    buffer_free(&fresh, &to);
    verified("a new device works");
    gpu_close(&fresh);
    gpu_close(&other);
    return 0;
}
