/*
 * Blocks of a sparse buffer bound to one memory, then to another: the buffer shows the new memory's content,
 * the old memory keeps what was written through the buffer. CTS sparse_resources.buffer.transfer.rebind
 * (half of a buffer, from its second block on, goes back to the first memory), 2^16 to 2^24 bytes; and
 * unbind.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

static void write_all(const struct gpu *gpu, const struct buffer *sparse, uint32_t word)
{
    VkCommandBuffer commands = commands_begin(gpu);

    vkCmdFillBuffer(commands, sparse->handle, 0, VK_WHOLE_SIZE, word);
    commands_run(gpu, commands);
}

/* In words of the buffer: `inside` from `offset`, `size` bytes long, `outside` elsewhere. */
static void check(const struct gpu *gpu, const struct buffer *sparse, VkDeviceSize offset, VkDeviceSize size,
                  uint32_t inside, uint32_t outside, const char *what)
{
    struct buffer back = buffer_new(gpu, sparse->size, HOST);
    uint8_t *expected = bytes_new(sparse->size);

    copy_now(gpu, sparse->handle, 0, back.handle, 0, sparse->size);
    for (VkDeviceSize at = 0; at < sparse->size; at += 4)
        memcpy(expected + at, at >= offset && at < offset + size ? &inside : &outside, 4);
    SAME(back.bytes, expected, sparse->size, "%s, %llu bytes", what, (unsigned long long)sparse->size);
    verified("%s, %llu bytes", what, (unsigned long long)sparse->size);
    buffer_free(gpu, &back);
    free(expected);
}

static void rebind(const struct gpu *gpu, VkDeviceSize size, bool residency)
{
    struct buffer sparse = buffer_sparse(gpu, size, residency ? RESIDENCY : BINDING);
    VkMemoryRequirements needs = buffer_needs(gpu, sparse.handle);
    VkDeviceSize block = needs.alignment, half = (needs.size / 2 + block - 1) / block * block;
    VkDeviceMemory first = memory_new(gpu, needs.size, needs.memoryTypeBits, 0);
    VkDeviceMemory second = memory_new(gpu, needs.size, needs.memoryTypeBits, 0);
    VkSparseMemoryBind whole = { 0, needs.size, first, 0, 0 };

    if (block + half > needs.size)
        half = needs.size - block; /* nothing if there is one block only */
    sparse_bind_buffer(gpu, sparse.handle, &whole, 1);
    write_all(gpu, &sparse, 0x11111111);
    whole.memory = second;
    sparse_bind_buffer(gpu, sparse.handle, &whole, 1);
    write_all(gpu, &sparse, 0x22222222);
    check(gpu, &sparse, 0, 0, 0, 0x22222222, "bound to a second memory");

    if (half)
        sparse_bind_buffer(gpu, sparse.handle, &(VkSparseMemoryBind){ block, half, first, block, 0 }, 1);
    check(gpu, &sparse, block, half, 0x11111111, 0x22222222, "half bound back to the first memory");

    if (half) /* the same range of the second memory elsewhere: not where it lay before */
        sparse_bind_buffer(gpu, sparse.handle,
                           &(VkSparseMemoryBind){ 0, block, first, needs.size - block, 0 }, 1);
    check(gpu, &sparse, 0, half ? block + half : 0, 0x11111111, 0x22222222, "the first block too");

    if (residency && gpu->properties.sparseProperties.residencyNonResidentStrict) {
        sparse_bind_buffer(gpu, sparse.handle, &(VkSparseMemoryBind){ 0, needs.size, VK_NULL_HANDLE, 0, 0 },
                           1);
        check(gpu, &sparse, 0, 0, 0, 0, "unbound: zero");
        write_all(gpu, &sparse, 0x33333333);
        whole.memory = second;
        sparse_bind_buffer(gpu, sparse.handle, &whole, 1);
        check(gpu, &sparse, 0, 0, 0, 0x22222222, "bound again: what the memory held");
    }
    buffer_free(gpu, &sparse);
    vkFreeMemory(gpu->device, first, NULL);
    vkFreeMemory(gpu->device, second, NULL);
}

int main(void)
{
    static const VkDeviceSize sizes[] = { 1 << 16, 1 << 18, 1 << 20, 1 << 24 };
    struct gpu gpu;

    gpu_open(&gpu, &(struct wish){ .features = { .sparseBinding = VK_TRUE,
                                                 .sparseResidencyBuffer = VK_TRUE,
                                                 .sparseResidencyAliased = VK_TRUE } });
    for (size_t i = 0; i < LEN(sizes); i++) {
        rebind(&gpu, sizes[i], false);
        rebind(&gpu, sizes[i], true);
    }
    gpu_close(&gpu);
    return 0;
}
