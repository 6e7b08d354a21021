/*
 * Sparse buffers, wholly bound, one memory object a block, 2^10 to 2^24 bytes: bytes go in and come out.
 * The cases of CTS sparse_resources.buffer.transfer.sparse_binding, here with each set of creation flags, the
 * bind on one queue and the copies on another ordered by a semaphore.
 */
#include "vk.h"

#include <stdlib.h>

static void run(const struct gpu *gpu, uint32_t log2_size, VkBufferCreateFlags flags, const char *what)
{
    VkDeviceSize size = (VkDeviceSize)1 << log2_size;
    struct buffer sparse = buffer_sparse(gpu, size, flags);
    struct buffer in = buffer_new(gpu, size, HOST), out = buffer_new(gpu, size, HOST);
    VkMemoryRequirements needs = buffer_needs(gpu, sparse.handle);
    uint32_t count = (uint32_t)(needs.size / needs.alignment);
    VkSparseMemoryBind *binds = bytes_new(count * sizeof *binds);
    VkSemaphore bound = semaphore_new(gpu);
    VkCommandBuffer commands = commands_begin(gpu);

    EQUAL(needs.size % needs.alignment, 0);
    CHECK(needs.size >= size && needs.size < size + needs.alignment, "%llu bytes needed for a buffer of %llu",
          (unsigned long long)needs.size, (unsigned long long)size);
    for (uint32_t i = 0; i < count; i++)
        binds[i] = (VkSparseMemoryBind){
            .resourceOffset = i * needs.alignment,
            .size = needs.alignment,
            .memory = memory_new(gpu, needs.alignment, needs.memoryTypeBits, 0),
        };
    VK(vkQueueBindSparse(
        gpu->sparse->handle, 1,
        &(VkBindSparseInfo){ .sType = VK_STRUCTURE_TYPE_BIND_SPARSE_INFO,
                             .bufferBindCount = 1,
                             .pBufferBinds = &(VkSparseBufferMemoryBindInfo){ sparse.handle, count, binds },
                             .signalSemaphoreCount = 1,
                             .pSignalSemaphores = &bound },
        VK_NULL_HANDLE));

    pattern(in.bytes, size, log2_size, 0);
    vkCmdCopyBuffer(commands, in.handle, sparse.handle, 1, &(VkBufferCopy){ 0, 0, size });
    commands_barrier(commands);
    vkCmdCopyBuffer(commands, sparse.handle, out.handle, 1, &(VkBufferCopy){ 0, 0, size });
    commands_barrier(commands);
    VK(vkEndCommandBuffer(commands));
    VK(submit_wait(
        gpu, gpu->queue->handle,
        &(VkSubmitInfo){ .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                         .waitSemaphoreCount = 1,
                         .pWaitSemaphores = &bound,
                         .pWaitDstStageMask = &(VkPipelineStageFlags){ VK_PIPELINE_STAGE_TRANSFER_BIT },
                         .commandBufferCount = 1,
                         .pCommandBuffers = &commands }));
    SAME(out.bytes, in.bytes, size, "%s, 2^%u bytes", what, log2_size);
    verified("%s, 2^%u bytes in %u memory objects", what, log2_size, count);

    vkFreeCommandBuffers(gpu->device, gpu->queue->pool, 1, &commands);
    vkDestroySemaphore(gpu->device, bound, NULL);
    buffer_free(gpu, &sparse);
    buffer_free(gpu, &in);
    buffer_free(gpu, &out);
    for (uint32_t i = 0; i < count; i++)
        vkFreeMemory(gpu->device, binds[i].memory, NULL);
    free(binds);
}

int main(void)
{
    static const uint32_t sizes[] = { 10, 12, 16, 17, 20, 24 };
    struct gpu gpu;

    gpu_open(&gpu, &(struct wish){ .features = { .sparseBinding = VK_TRUE,
                                                 .sparseResidencyBuffer = VK_TRUE,
                                                 .sparseResidencyAliased = VK_TRUE } });
    for (size_t i = 0; i < LEN(sizes); i++) {
        run(&gpu, sizes[i], BINDING, "sparse binding");
        run(&gpu, sizes[i], BINDING | ALIASED, "sparse binding, aliased");
        run(&gpu, sizes[i], RESIDENCY, "sparse residency");
        run(&gpu, sizes[i], RESIDENCY | ALIASED, "sparse residency, aliased");
    }
    gpu_close(&gpu);
    return 0;
}
