/*
 * One memory bound to two sparse buffers, and twice to one buffer: what is written through one shows in the
 * other. Beside CTS sparse_resources.buffer.ssbo.sparse_binding_aliased: blocks in another order, and a
 * normal buffer bound to the same memory.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

#define SIZE (1 * MIB)

static void write_pattern(const struct gpu *gpu, VkBuffer buffer, uint8_t *content, uint32_t seed)
{
    struct buffer in = buffer_new(gpu, SIZE, HOST);

    pattern(content, SIZE, seed, 0);
    memcpy(in.bytes, content, SIZE);
    copy_now(gpu, in.handle, 0, buffer, 0, SIZE);
    buffer_free(gpu, &in);
}

static void check(const struct gpu *gpu, VkBuffer buffer, const uint8_t *expected, const char *what)
{
    struct buffer back = buffer_new(gpu, SIZE, HOST);

    copy_now(gpu, buffer, 0, back.handle, 0, SIZE);
    SAME(back.bytes, expected, SIZE, "%s", what);
    verified("%s", what);
    buffer_free(gpu, &back);
}

int main(void)
{
    struct gpu gpu;

    gpu_open(&gpu, &(struct wish){ .features = { .sparseBinding = VK_TRUE,
                                                 .sparseResidencyBuffer = VK_TRUE,
                                                 .sparseResidencyAliased = VK_TRUE } });
    struct buffer straight = buffer_sparse(&gpu, SIZE, BINDING | ALIASED);
    struct buffer reversed = buffer_sparse(&gpu, SIZE, RESIDENCY | ALIASED);
    struct buffer twice = buffer_sparse(&gpu, SIZE, BINDING | ALIASED);
    struct buffer normal = buffer_sparse(&gpu, SIZE, 0);
    VkMemoryRequirements needs = buffer_needs(&gpu, straight.handle);
    VkMemoryRequirements normal_needs = buffer_needs(&gpu, normal.handle);
    VkDeviceSize block = needs.alignment;
    uint32_t count = (uint32_t)(SIZE / block);
    VkDeviceMemory memory = memory_new(&gpu, SIZE, needs.memoryTypeBits & normal_needs.memoryTypeBits, LOCAL);
    VkSparseMemoryBind *backwards = bytes_new(count * sizeof *backwards);
    uint8_t *content = bytes_new(SIZE), *expected = bytes_new(SIZE);

    EQUAL(needs.size, SIZE);
    CHECK(count % 2 == 0, "the block of %llu bytes is too large", (unsigned long long)block);
    bind_every(&gpu, &straight, memory, 0, 1);
    for (uint32_t i = 0; i < count; i++)
        backwards[i] = (VkSparseMemoryBind){ i * block, block, memory, SIZE - (i + 1) * block, 0 };
    sparse_bind_buffer(&gpu, reversed.handle, backwards, count);
    sparse_bind_buffer(
        &gpu, twice.handle,
        (VkSparseMemoryBind[]){ { 0, SIZE / 2, memory, 0, 0 }, { SIZE / 2, SIZE / 2, memory, 0, 0 } }, 2);
    VK(vkBindBufferMemory(gpu.device, normal.handle, memory, 0));

    write_pattern(&gpu, straight.handle, content, 1);
    check(&gpu, straight.handle, content, "the buffer itself");
    check(&gpu, normal.handle, content, "a normal buffer on the same memory");
    for (uint32_t i = 0; i < count; i++)
        memcpy(expected + i * block, content + SIZE - (i + 1) * block, block);
    check(&gpu, reversed.handle, expected, "a buffer with the same blocks in reverse");
    memcpy(expected, content, SIZE / 2);
    memcpy(expected + SIZE / 2, content, SIZE / 2);
    check(&gpu, twice.handle, expected, "a buffer with the first half twice");

    write_pattern(&gpu, reversed.handle, content, 2);
    for (uint32_t i = 0; i < count; i++)
        memcpy(expected + i * block, content + SIZE - (i + 1) * block, block);
    check(&gpu, straight.handle, expected, "written through the reversed buffer");

    VkCommandBuffer commands = commands_begin(&gpu);
    vkCmdFillBuffer(commands, twice.handle, SIZE / 2, 4096, 0x77777777);
    commands_run(&gpu, commands);
    memset(expected, 0x77, 4096);
    check(&gpu, straight.handle, expected,
          "written through the second half of the buffer with one half twice");

    free(backwards);
    free(content);
    free(expected);
    buffer_free(&gpu, &straight);
    buffer_free(&gpu, &reversed);
    buffer_free(&gpu, &twice);
    buffer_free(&gpu, &normal);
    vkFreeMemory(gpu.device, memory, NULL);
    gpu_close(&gpu);
    return 0;
}
