/* Several devices in one process: each has its own address space and objects; semaphores and memory that
 * leave one are good in the others; and each ends by itself. */
#include "vk.h"

#include <string.h>

#define SIZE (64 * KIB)

enum { COUNT = 4, LAPS = 5 };

static const VkExternalMemoryHandleTypeFlagBits MEMORY = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT;
static const VkExternalSemaphoreHandleTypeFlagBits SEMAPHORE =
    VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT;

static struct gpu gpus[COUNT];

static void works(struct gpu *gpu, uint32_t seed)
{
    struct buffer from = buffer_new(gpu, SIZE, HOST), between = buffer_new(gpu, SIZE, LOCAL),
                  to = buffer_new(gpu, SIZE, HOST);

    pattern(from.bytes, SIZE, seed, 0);
    memset(to.bytes, 0, SIZE);
    copy_now(gpu, from.handle, 0, between.handle, 0, SIZE);
    copy_now(gpu, between.handle, 0, to.handle, 0, SIZE);
    SAME(to.bytes, from.bytes, SIZE, "the copy of the copy");
    buffer_free(gpu, &from);
    buffer_free(gpu, &between);
    buffer_free(gpu, &to);
}

/* What each device wrote to its own memory stays there, whatever the others write to theirs. */
static void apart(void)
{
    struct buffer from[COUNT], own[COUNT], back[COUNT];

    for (uint32_t i = 0; i < COUNT; i++) {
        from[i] = buffer_new(&gpus[i], SIZE, HOST);
        own[i] = buffer_new(&gpus[i], SIZE, LOCAL);
        back[i] = buffer_new(&gpus[i], SIZE, HOST);
        pattern(from[i].bytes, SIZE, 20 + i, 0);
    }
    for (uint32_t i = 0; i < COUNT; i++)
        copy_now(&gpus[i], from[i].handle, 0, own[i].handle, 0, SIZE);
    for (uint32_t i = 0; i < COUNT; i++) {
        copy_now(&gpus[i], own[i].handle, 0, back[i].handle, 0, SIZE);
        SAME(back[i].bytes, from[i].bytes, SIZE, "the memory of device %u", i);
        buffer_free(&gpus[i], &from[i]);
        buffer_free(&gpus[i], &own[i]);
        buffer_free(&gpus[i], &back[i]);
    }
    verified("%d devices at once, each with its own memory", COUNT);
}

/* A ring: each device copies its slot of the shared memory to the next slot when the one before is done. */
static void ring(void)
{
    const VkDeviceSize slots = COUNT * LAPS + 1;
    struct buffer shared[COUNT], from = buffer_new(&gpus[0], SIZE, HOST),
                                 to = buffer_new(&gpus[0], SIZE, HOST);
    VkSemaphore semaphores[COUNT][COUNT]; /* [of][in]: signalled by a device, as another one knows it */
    VkEvent go = event_new(&gpus[0]);
    VkCommandBuffer commands;

    for (uint32_t i = 0; i < COUNT; i++) {
        shared[i] = i ? buffer_imported(&gpus[i], slots * SIZE, LOCAL, MEMORY,
                                        buffer_fd(&gpus[0], &shared[0], MEMORY))
                      : buffer_exported(&gpus[0], slots * SIZE, LOCAL, MEMORY);
        semaphores[i][i] = semaphore_exported(&gpus[i], VK_SEMAPHORE_TYPE_BINARY, SEMAPHORE);
        for (uint32_t j = 0; j < COUNT; j++)
            if (j != i) {
                semaphores[i][j] = semaphore_new(&gpus[j]);
                semaphore_import(&gpus[j], semaphores[i][j], SEMAPHORE,
                                 semaphore_fd(&gpus[i], semaphores[i][i], SEMAPHORE));
            }
    }
    pattern(from.bytes, SIZE, 30, 0);
    copy_now(&gpus[0], from.handle, 0, shared[0].handle, 0, SIZE);

    for (uint32_t step = 0; step < COUNT * LAPS; step++) {
        uint32_t i = step % COUNT, before = (i + COUNT - 1) % COUNT;

        commands = step ? commands_begin(&gpus[i]) : commands_held(&gpus[0], gpus[0].queue, go);
        vkCmdCopyBuffer(commands, shared[i].handle, shared[i].handle, 1,
                        &(VkBufferCopy){ step * SIZE, (step + 1) * SIZE, SIZE });
        commands_barrier(commands);
        VK(queue_submit(gpus[i].queue,
                        &(struct job){ .commands = commands,
                                       .waits = { { step ? semaphores[before][i] : VK_NULL_HANDLE, 0 } },
                                       .signals = { { semaphores[i][i], 0 } } }));
    }
    commands = commands_begin(&gpus[0]);
    vkCmdCopyBuffer(commands, shared[0].handle, to.handle, 1, &(VkBufferCopy){ (slots - 1) * SIZE, 0, SIZE });
    commands_barrier(commands);
    memset(to.bytes, 0, SIZE);
    VK(queue_submit(gpus[0].queue,
                    &(struct job){ .commands = commands, .waits = { { semaphores[COUNT - 1][0], 0 } } }));
    VK(vkSetEvent(gpus[0].device, go));
    VK(vkQueueWaitIdle(gpus[0].queue->handle));
    SAME(to.bytes, from.bytes, SIZE, "what came round the ring");
    verified("a ring of %d devices, %d laps, by semaphores alone", COUNT, LAPS);

    vkDestroyEvent(gpus[0].device, go, NULL);
    buffer_free(&gpus[0], &from);
    buffer_free(&gpus[0], &to);
    for (uint32_t i = 0; i < COUNT; i++) {
        VK(vkDeviceWaitIdle(gpus[i].device));
        buffer_free(&gpus[i], &shared[i]);
        for (uint32_t j = 0; j < COUNT; j++)
            vkDestroySemaphore(gpus[j].device, semaphores[i][j], NULL);
    }
}

int main(void)
{
    const struct wish wish = { .synchronization2 = true,
                               .extensions = { VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                               VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME } };

    for (uint32_t i = 0; i < COUNT; i++)
        gpu_open(&gpus[i], &wish);
    apart();
    ring();
    gpu_close(&gpus[1]);
    gpu_close(&gpus[0]);
    works(&gpus[2], 40);
    works(&gpus[3], 41);
    gpu_open(&gpus[0], &wish);
    works(&gpus[0], 42);
    works(&gpus[3], 43);
    verified("devices that go on after others ended, and a new one");
    gpu_close(&gpus[3]);
    gpu_close(&gpus[0]);
    gpu_close(&gpus[2]);
    return 0;
}
