/* Events: set, reset and asked by the host, set and waited for by the queue, across submissions. */
#include "vk.h"

#include <sched.h>
#include <string.h>

#define SIZE (64 * KIB)

static struct gpu gpu;

static void host_only(void)
{
    VkEvent event = event_new(&gpu);

    RESULT(vkGetEventStatus(gpu.device, event), VK_EVENT_RESET);
    VK(vkSetEvent(gpu.device, event));
    RESULT(vkGetEventStatus(gpu.device, event), VK_EVENT_SET);
    VK(vkSetEvent(gpu.device, event));
    VK(vkResetEvent(gpu.device, event));
    RESULT(vkGetEventStatus(gpu.device, event), VK_EVENT_RESET);
    vkDestroyEvent(gpu.device, event, NULL);
    verified("the host sets, resets and asks an event");
}

static void queue_sets_and_resets(void)
{
    VkEvent events[2] = { event_new(&gpu), event_new(&gpu) };
    VkCommandBuffer commands = commands_begin(&gpu);

    VK(vkSetEvent(gpu.device, events[1]));
    vkCmdSetEvent(commands, events[0], VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
    vkCmdResetEvent(commands, events[1], VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
    commands_run(&gpu, commands);
    RESULT(vkGetEventStatus(gpu.device, events[0]), VK_EVENT_SET);
    RESULT(vkGetEventStatus(gpu.device, events[1]), VK_EVENT_RESET);
    for (int i = 0; i < 2; i++)
        vkDestroyEvent(gpu.device, events[i], NULL);
    verified("the queue sets and resets events");
}

/* One submission sets the event after its copy, the next waits for it and copies on. */
static void across_submissions(void)
{
    struct buffer buffers[3] = { buffer_new(&gpu, SIZE, HOST), buffer_new(&gpu, SIZE, LOCAL),
                                 buffer_new(&gpu, SIZE, HOST) };
    VkEvent event = event_new(&gpu);
    VkCommandBuffer commands;
    VkFence fence = fence_new(&gpu, false);

    pattern(buffers[0].bytes, SIZE, 7, 0);
    commands = commands_begin(&gpu);
    vkCmdCopyBuffer(commands, buffers[0].handle, buffers[1].handle, 1, &(VkBufferCopy){ 0, 0, SIZE });
    vkCmdSetEvent(commands, event, VK_PIPELINE_STAGE_TRANSFER_BIT);
    VK(queue_submit(gpu.queue, &(struct job){ .commands = commands }));
    commands = commands_begin(&gpu);
    wait_event(commands, event, VK_PIPELINE_STAGE_TRANSFER_BIT);
    vkCmdCopyBuffer(commands, buffers[1].handle, buffers[2].handle, 1, &(VkBufferCopy){ 0, 0, SIZE });
    commands_barrier(commands);
    VK(queue_submit(gpu.queue, &(struct job){ .commands = commands, .fence = fence }));
    VK(vkWaitForFences(gpu.device, 1, &fence, true, PATIENCE));
    SAME(buffers[2].bytes, buffers[0].bytes, SIZE, "the copy of the copy");
    vkDestroyFence(gpu.device, fence, NULL);
    vkDestroyEvent(gpu.device, event, NULL);
    for (int i = 0; i < 3; i++)
        buffer_free(&gpu, &buffers[i]);
    verified("an event that one submission sets and the next waits for");
}

/* Host and queue meet in the middle of a command buffer: the queue says that it began, waits for the host,
 * copies what the host wrote meanwhile, and says that it is done. */
static void host_and_queue_meet(void)
{
    struct buffer from = buffer_new(&gpu, SIZE, HOST), to = buffer_new(&gpu, SIZE, HOST);
    VkEvent began = event_new(&gpu), go = event_new(&gpu), done = event_new(&gpu);
    VkFence fence = fence_new(&gpu, false);
    VkCommandBuffer commands = commands_begin(&gpu);

    memset(to.bytes, 0, SIZE);
    vkCmdSetEvent(commands, began, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
    wait_event(commands, go, VK_PIPELINE_STAGE_HOST_BIT);
    vkCmdCopyBuffer(commands, from.handle, to.handle, 1, &(VkBufferCopy){ 0, 0, SIZE });
    commands_barrier(commands);
    vkCmdSetEvent(commands, done, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
    VK(queue_submit(gpu.queue, &(struct job){ .commands = commands, .fence = fence }));

    while (vkGetEventStatus(gpu.device, began) != VK_EVENT_SET)
        sched_yield();
    RESULT(vkGetEventStatus(gpu.device, done), VK_EVENT_RESET);
    RESULT(vkWaitForFences(gpu.device, 1, &fence, true, SECOND / 100), VK_TIMEOUT);
    ZERO(to.bytes, SIZE, "what is copied to before the host's event");
    pattern(from.bytes, SIZE, 8, 0);
    VK(vkSetEvent(gpu.device, go));
    VK(vkWaitForFences(gpu.device, 1, &fence, true, PATIENCE));
    RESULT(vkGetEventStatus(gpu.device, done), VK_EVENT_SET);
    SAME(to.bytes, from.bytes, SIZE, "the copy after the host's event");
    vkDestroyFence(gpu.device, fence, NULL);
    vkDestroyEvent(gpu.device, began, NULL);
    vkDestroyEvent(gpu.device, go, NULL);
    vkDestroyEvent(gpu.device, done, NULL);
    buffer_free(&gpu, &from);
    buffer_free(&gpu, &to);
    verified("host and queue wait for each other's events within one submission");
}

int main(void)
{
    gpu_open(&gpu, &(struct wish){ .synchronization2 = true });
    host_only();
    queue_sets_and_resets();
    across_submissions();
    host_and_queue_meet();
    gpu_close(&gpu);
    return 0;
}
