/* vkCmdFillBuffer, vkCmdUpdateBuffer and vkCmdCopyBuffer, read back whole: nothing else changes. */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

#define SIZE (2 * MIB + 3 * KIB) /* no multiple of the 128 KiB that a driver may split copies into */

/* The same commands on the buffer and, by the processor, on `expected`. */
static void fill(VkCommandBuffer commands, VkBuffer buffer, uint8_t *expected, VkDeviceSize offset,
                 VkDeviceSize size, uint32_t word)
{
    vkCmdFillBuffer(commands, buffer, offset, size, word);
    commands_barrier(commands);
    if (size == VK_WHOLE_SIZE)
        size = (SIZE - offset) & ~(VkDeviceSize)3;
    for (VkDeviceSize at = 0; at < size; at += 4)
        memcpy(expected + offset + at, &word, 4);
}

static void update(VkCommandBuffer commands, VkBuffer buffer, uint8_t *expected, VkDeviceSize offset,
                   VkDeviceSize size, uint32_t seed)
{
    pattern(expected + offset, size, seed, 0);
    vkCmdUpdateBuffer(commands, buffer, offset, size, expected + offset);
    commands_barrier(commands);
}

static void run(const struct gpu *gpu, VkMemoryPropertyFlags flags, const char *where)
{
    struct buffer buffer = buffer_new(gpu, SIZE, flags), back = buffer_new(gpu, SIZE, HOST);
    uint8_t *expected = bytes_new(SIZE);
    VkCommandBuffer commands = commands_begin(gpu);

    fill(commands, buffer.handle, expected, 0, VK_WHOLE_SIZE, 0xdeadbeef);
    fill(commands, buffer.handle, expected, 4, 4, 0x01020304);
    fill(commands, buffer.handle, expected, 128 * KIB - 4, 8, 0x11223344);
    fill(commands, buffer.handle, expected, 1 * MIB + 12, 300 * KIB + 4, 0);
    fill(commands, buffer.handle, expected, SIZE - 4, 4, 0xffffffff);
    update(commands, buffer.handle, expected, 64, 4, 1);
    update(commands, buffer.handle, expected, 4096 - 8, 1000, 2);
    update(commands, buffer.handle, expected, 1 * MIB, 65536, 3);
    vkCmdCopyBuffer(commands, buffer.handle, back.handle, 1, &(VkBufferCopy){ 0, 0, SIZE });
    commands_run(gpu, commands);
    SAME(back.bytes, expected, SIZE, "fills and updates in %s", where);
    verified("fills and updates of a buffer in %s", where);

    free(expected);
    buffer_free(gpu, &buffer);
    buffer_free(gpu, &back);
}

int main(void)
{
    struct gpu gpu;

    gpu_open(&gpu, NULL);
    run(&gpu, LOCAL, "memory of the device");
    run(&gpu, HOST, "memory of the host");
    gpu_close(&gpu);
    return 0;
}
