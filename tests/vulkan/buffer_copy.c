/* vkCmdCopyBuffer between every pair of places: odd offsets and sizes, many regions, 16 MiB, within one
 * buffer. */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

#define SIZE (16 * MIB)

static const VkBufferCopy REGIONS[] = {
    { 0, 1, 1 },              /* one byte */
    { 7, 12, 5 },             /* nothing aligned */
    { 4095, 8191, 4099 },     /* over page boundaries */
    { 65535, 131071, 65537 }, /* over the 64 KiB page's */
    { 1 * MIB + 3, 2 * MIB - 5, 300 * KIB + 1 },
    { 3 * MIB, 3 * MIB, 4 * MIB }, /* more than one launch of a copy engine */
    { 0, 9 * MIB + 1, 2 * MIB - 1 },
    { SIZE - 1, SIZE - 1, 1 }, /* the last byte */
};

static struct buffer filled(const struct gpu *gpu, VkMemoryPropertyFlags flags, const uint8_t *bytes)
{
    struct buffer buffer = buffer_new(gpu, SIZE, flags), staging = buffer_new(gpu, SIZE, HOST);

    memcpy(staging.bytes, bytes, SIZE);
    copy_now(gpu, staging.handle, 0, buffer.handle, 0, SIZE);
    buffer_free(gpu, &staging);
    return buffer;
}

static void check(const struct gpu *gpu, const struct buffer *buffer, const uint8_t *expected,
                  const char *what)
{
    struct buffer back = buffer_new(gpu, SIZE, HOST);

    copy_now(gpu, buffer->handle, 0, back.handle, 0, SIZE);
    SAME(back.bytes, expected, SIZE, "%s", what);
    buffer_free(gpu, &back);
    verified("%s", what);
}

static void between(const struct gpu *gpu, VkMemoryPropertyFlags from_flags, VkMemoryPropertyFlags to_flags,
                    const char *what)
{
    uint8_t *source = bytes_new(SIZE), *expected = bytes_new(SIZE);
    struct buffer from, to;
    VkCommandBuffer commands;

    pattern(source, SIZE, 1, 0);
    pattern(expected, SIZE, 2, 0);
    from = filled(gpu, from_flags, source);
    to = filled(gpu, to_flags, expected);
    commands = commands_begin(gpu);
    vkCmdCopyBuffer(commands, from.handle, to.handle, LEN(REGIONS), REGIONS);
    commands_run(gpu, commands);
    for (size_t i = 0; i < LEN(REGIONS); i++)
        memcpy(expected + REGIONS[i].dstOffset, source + REGIONS[i].srcOffset, REGIONS[i].size);
    check(gpu, &to, expected, what);
    buffer_free(gpu, &from);
    buffer_free(gpu, &to);
    free(source);
    free(expected);
}

/* Source and destination do not overlap: what Vulkan allows in one buffer. */
static void within(const struct gpu *gpu)
{
    uint8_t *expected = bytes_new(SIZE);
    struct buffer buffer;

    pattern(expected, SIZE, 3, 0);
    buffer = filled(gpu, LOCAL, expected);
    copy_now(gpu, buffer.handle, 13, buffer.handle, 5 * MIB + 1, 4 * MIB + 7);
    memcpy(expected + 5 * MIB + 1, expected + 13, 4 * MIB + 7);
    check(gpu, &buffer, expected, "a copy within one buffer");
    buffer_free(gpu, &buffer);
    free(expected);
}

int main(void)
{
    struct gpu gpu;

    gpu_open(&gpu, NULL);
    between(&gpu, LOCAL, LOCAL, "copies from memory of the device to memory of the device");
    between(&gpu, HOST, LOCAL, "copies from memory of the host to memory of the device");
    between(&gpu, LOCAL, HOST, "copies from memory of the device to memory of the host");
    between(&gpu, HOST, HOST, "copies from memory of the host to memory of the host");
    within(&gpu);
    gpu_close(&gpu);
    return 0;
}
