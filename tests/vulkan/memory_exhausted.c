/*
 * One device asks for one and a half times the device's memory, in 24 chunks, and uses all of it in one
 * submit; first in memory of its own, then in memory that might be shared. The driver may refuse an
 * allocation or the submit, or make it fit; it may not hang, and what it did not refuse must be right.
 * Another device works afterwards. Argument: MiB to ask for instead.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

#define CHUNKS 24
#define USED (64 * KIB) /* of each chunk, at its start and at its end */

static VkDeviceSize chunk_size(const struct gpu *gpu, const char *argument)
{
    VkDeviceSize heap =
        gpu->memory.memoryHeaps[gpu->memory.memoryTypes[memory_type(gpu, ~0u, LOCAL)].heapIndex].size;

    if (argument)
        return strtoull(argument, NULL, 0) * MIB / CHUNKS / USED * USED;
    if (heap > 512 * MIB)
        lacks("a heap small enough to be filled (%llu MiB)", (unsigned long long)(heap / MIB));
    return heap / 2 * 3 / CHUNKS;
}

/* Buffers until the driver refuses one; how many there are. */
static uint32_t allocate(const struct gpu *gpu, struct buffer *chunks, bool shared, VkDeviceSize size)
{
    VkExportMemoryAllocateInfo sharing = { .sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
                                           .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT };

    for (uint32_t i = 0; i < CHUNKS; i++) {
        VkMemoryRequirements needs;
        VkResult result;

        chunks[i] = buffer_sparse(gpu, size, 0);
        needs = buffer_needs(gpu, chunks[i].handle);
        result = vkAllocateMemory(
            gpu->device,
            &(VkMemoryAllocateInfo){ .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                     .pNext = shared ? &sharing : NULL,
                                     .allocationSize = needs.size,
                                     .memoryTypeIndex = memory_type(gpu, needs.memoryTypeBits, LOCAL) },
            NULL, &chunks[i].memory);
        if (result != VK_SUCCESS) {
            RESULT(result, VK_ERROR_OUT_OF_DEVICE_MEMORY);
            chunks[i].memory = VK_NULL_HANDLE;
            buffer_free(gpu, &chunks[i]);
            verified("chunk %u of %u: VK_ERROR_OUT_OF_DEVICE_MEMORY", i, CHUNKS);
            return i;
        }
        VK(vkBindBufferMemory(gpu->device, chunks[i].handle, chunks[i].memory, 0));
    }
    verified("%u chunks of %llu MiB allocated", CHUNKS, (unsigned long long)(size / MIB));
    return CHUNKS;
}

static VkResult use_all(const struct gpu *gpu, struct buffer *chunks, uint32_t count)
{
    VkCommandBuffer commands = commands_begin(gpu);

    for (uint32_t i = 0; i < count; i++) {
        vkCmdFillBuffer(commands, chunks[i].handle, 0, USED, i + 1);
        vkCmdFillBuffer(commands, chunks[i].handle, chunks[i].size - USED, USED, i + 101);
    }
    commands_barrier(commands);
    VK(vkEndCommandBuffer(commands));
    return submit_wait(gpu, gpu->queue->handle,
                       &(VkSubmitInfo){ .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                        .commandBufferCount = 1,
                                        .pCommandBuffers = &commands });
}

static void check_all(const struct gpu *gpu, struct buffer *chunks, uint32_t count)
{
    struct buffer back = buffer_new(gpu, 2 * USED, HOST);
    uint8_t *expected = bytes_new(2 * USED);

    for (uint32_t i = 0; i < count; i++) {
        for (VkDeviceSize at = 0; at < 2 * USED; at += 4)
            memcpy(expected + at, &(uint32_t){ i + (at < USED ? 1 : 101) }, 4);
        copy_now(gpu, chunks[i].handle, 0, back.handle, 0, USED);
        copy_now(gpu, chunks[i].handle, chunks[i].size - USED, back.handle, USED, USED);
        SAME(back.bytes, expected, back.size, "chunk %u", i);
    }
    free(expected);
    buffer_free(gpu, &back);
}

static void exhaust(const char *argument, bool shared)
{
    struct gpu gpu;
    struct buffer chunks[CHUNKS];
    uint32_t count;
    VkResult result;

    gpu_open(&gpu, &(struct wish){ .extensions = { VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME } });
    count = allocate(&gpu, chunks, shared, chunk_size(&gpu, argument));
    result = use_all(&gpu, chunks, count);
    if (result == VK_SUCCESS) {
        check_all(&gpu, chunks, count);
        verified("%u chunks used in one submit and read back", count);
    } else {
        CHECK(result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_DEVICE_LOST, "the submit: %s",
              result_name(result));
        verified("the submit that uses %u chunks: %s", count, result_name(result));
    }
    for (uint32_t i = 0; i < count; i++)
        buffer_free(&gpu, &chunks[i]);
    gpu_close(&gpu);
}

int main(int argc, char **argv)
{
    struct gpu gpu;
    struct buffer small;

    exhaust(argc > 1 ? argv[1] : NULL, false);
    exhaust(argc > 1 ? argv[1] : NULL, true);
    gpu_open(&gpu, NULL);
    small = buffer_new(&gpu, 1 * MIB, LOCAL);
    VK(use_all(&gpu, &small, 1));
    check_all(&gpu, &small, 1);
    verified("another device works afterwards");
    buffer_free(&gpu, &small);
    gpu_close(&gpu);
    return 0;
}
