/* Submissions and binds with their semaphores: the part "jobs" of vk.h. */
#include "vk.h"

static uint32_t points_in(const struct point points[16])
{
    uint32_t count = 0;

    while (count < 16 && points[count].semaphore)
        count++;
    return count;
}

static uint32_t as_infos(const struct point points[16], VkSemaphoreSubmitInfo infos[16])
{
    uint32_t count = points_in(points);

    for (uint32_t i = 0; i < count; i++)
        infos[i] = (VkSemaphoreSubmitInfo){ .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                            .semaphore = points[i].semaphore,
                                            .value = points[i].value,
                                            .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT };
    return count;
}

VkResult queue_submit(const struct queue *queue, const struct job *job)
{
    VkSemaphoreSubmitInfo waits[16], signals[16];

    if (job->commands)
        VK(vkEndCommandBuffer(job->commands));
    return vkQueueSubmit2(queue->handle, 1,
                          &(VkSubmitInfo2){ .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                            .waitSemaphoreInfoCount = as_infos(job->waits, waits),
                                            .pWaitSemaphoreInfos = waits,
                                            .commandBufferInfoCount = job->commands ? 1 : 0,
                                            .pCommandBufferInfos =
                                                &(VkCommandBufferSubmitInfo){
                                                    .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                                    .commandBuffer = job->commands },
                                            .signalSemaphoreInfoCount = as_infos(job->signals, signals),
                                            .pSignalSemaphoreInfos = signals },
                          job->fence);
}

static uint32_t as_arrays(const struct point points[16], VkSemaphore semaphores[16], uint64_t values[16])
{
    uint32_t count = points_in(points);

    for (uint32_t i = 0; i < count; i++) {
        semaphores[i] = points[i].semaphore;
        values[i] = points[i].value;
    }
    return count;
}

VkResult queue_bind(const struct queue *queue, const struct job *job, const VkBindSparseInfo *info)
{
    VkSemaphore waits[16], signals[16];
    uint64_t wait_values[16], signal_values[16];
    VkTimelineSemaphoreSubmitInfo values = { .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                                             .pWaitSemaphoreValues = wait_values,
                                             .pSignalSemaphoreValues = signal_values };
    VkBindSparseInfo whole = *info;

    whole.sType = VK_STRUCTURE_TYPE_BIND_SPARSE_INFO;
    whole.pNext = &values;
    whole.waitSemaphoreCount = values.waitSemaphoreValueCount = as_arrays(job->waits, waits, wait_values);
    whole.pWaitSemaphores = waits;
    whole.signalSemaphoreCount = values.signalSemaphoreValueCount =
        as_arrays(job->signals, signals, signal_values);
    whole.pSignalSemaphores = signals;
    return vkQueueBindSparse(queue->handle, 1, &whole, job->fence);
}

VkEvent event_new(const struct gpu *gpu)
{
    VkEvent event;

    VK(vkCreateEvent(gpu->device, &(VkEventCreateInfo){ .sType = VK_STRUCTURE_TYPE_EVENT_CREATE_INFO }, NULL,
                     &event));
    return event;
}

void wait_event(VkCommandBuffer commands, VkEvent event, VkPipelineStageFlags set_by)
{
    vkCmdWaitEvents(
        commands, 1, &event, set_by, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 1,
        &(VkMemoryBarrier){ .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                            .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
                            .dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT },
        0, NULL, 0, NULL);
}

VkCommandBuffer commands_held(const struct gpu *gpu, const struct queue *queue, VkEvent event)
{
    VkCommandBuffer commands = commands_for(gpu, queue);

    wait_event(commands, event, VK_PIPELINE_STAGE_HOST_BIT);
    return commands;
}

uint64_t timeline_value(const struct gpu *gpu, VkSemaphore timeline)
{
    uint64_t value;

    VK(vkGetSemaphoreCounterValue(gpu->device, timeline, &value));
    return value;
}

void timeline_signal(const struct gpu *gpu, VkSemaphore timeline, uint64_t value)
{
    VK(vkSignalSemaphore(gpu->device,
                         &(VkSemaphoreSignalInfo){ .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO,
                                                   .semaphore = timeline,
                                                   .value = value }));
}

VkResult timeline_wait(const struct gpu *gpu, VkSemaphore timeline, uint64_t value, uint64_t timeout)
{
    return vkWaitSemaphores(gpu->device,
                            &(VkSemaphoreWaitInfo){ .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                                    .semaphoreCount = 1,
                                                    .pSemaphores = &timeline,
                                                    .pValues = &value },
                            timeout);
}
