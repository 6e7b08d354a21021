/*
 * Sparse buffers with every second block, or none, bound: what is written to holes is dropped, what is read
 * from holes is zero where the driver says so (residencyNonResidentStrict). By copy, fill and update; the
 * cases "non_resident_buffer" of CTS sparse_resources.buffer.ssbo.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

enum bound { NONE, EVEN, ODD };
static const char *const BOUND[] = { "no block", "the even blocks", "the odd blocks" };

struct holed {
    struct buffer sparse;
    VkDeviceMemory memory;
    VkDeviceSize block;
    enum bound bound;
};

static struct holed holed_new(const struct gpu *gpu, VkDeviceSize size, enum bound bound)
{
    struct buffer sparse = buffer_sparse(gpu, size, RESIDENCY);
    VkMemoryRequirements needs = buffer_needs(gpu, sparse.handle);
    VkDeviceMemory memory = memory_new(gpu, needs.size, needs.memoryTypeBits, 0);

    if (bound != NONE)
        bind_every(gpu, &sparse, memory, bound == ODD, 2);
    return (struct holed){ sparse, memory, needs.alignment, bound };
}

static void holed_free(const struct gpu *gpu, struct holed *holed)
{
    buffer_free(gpu, &holed->sparse);
    vkFreeMemory(gpu->device, holed->memory, NULL);
}

static bool resident(const struct holed *holed, VkDeviceSize at)
{
    return holed->bound != NONE && (at / holed->block % 2 == 1) == (holed->bound == ODD);
}

/* Reads the whole buffer. `expected` holds what was written; where nothing is promised any byte is right. */
static void check(const struct gpu *gpu, const struct holed *holed, uint8_t *expected, const char *how)
{
    bool strict = gpu->properties.sparseProperties.residencyNonResidentStrict;
    VkDeviceSize size = holed->sparse.size;
    struct buffer back = buffer_new(gpu, size, HOST);

    memset(back.bytes, 0x5a, size);
    copy_now(gpu, holed->sparse.handle, 0, back.handle, 0, size);
    for (VkDeviceSize at = 0; at < size; at++)
        if (!resident(holed, at))
            expected[at] = strict ? 0 : back.bytes[at];
    SAME(back.bytes, expected, size, "%s, %s bound, %llu bytes", how, BOUND[holed->bound],
         (unsigned long long)size);
    verified("%llu bytes %s, %s bound%s", (unsigned long long)size, how, BOUND[holed->bound],
             strict ? ": holes are zero" : "");
    buffer_free(gpu, &back);
}

static void copied(const struct gpu *gpu, const struct holed *holed, uint8_t *expected)
{
    struct buffer in = buffer_new(gpu, holed->sparse.size, HOST);

    pattern(expected, in.size, 1, 0);
    memcpy(in.bytes, expected, in.size);
    copy_now(gpu, in.handle, 0, holed->sparse.handle, 0, in.size);
    check(gpu, holed, expected, "copied");
    buffer_free(gpu, &in);
}

static void filled(const struct gpu *gpu, const struct holed *holed, uint8_t *expected)
{
    VkCommandBuffer commands = commands_begin(gpu);

    vkCmdFillBuffer(commands, holed->sparse.handle, 0, VK_WHOLE_SIZE, 0xababcdcd);
    commands_run(gpu, commands);
    for (VkDeviceSize at = 0; at < holed->sparse.size; at += 4)
        memcpy(expected + at, &(uint32_t){ 0xababcdcd }, 4);
    check(gpu, holed, expected, "filled");
}

static void updated(const struct gpu *gpu, const struct holed *holed, uint8_t *expected)
{
    VkCommandBuffer commands = commands_begin(gpu);
    VkDeviceSize size = holed->sparse.size, step = size < 65536 ? size : 65536; /* the most of one update */

    pattern(expected, size, 2, 0);
    for (VkDeviceSize at = 0; at < size; at += step)
        vkCmdUpdateBuffer(commands, holed->sparse.handle, at, step, expected + at);
    commands_run(gpu, commands);
    check(gpu, holed, expected, "updated");
}

int main(void)
{
    static void (*const ways[])(const struct gpu *, const struct holed *, uint8_t *) = { copied, filled,
                                                                                         updated };
    static const VkDeviceSize sizes[] = { 1 << 10, 1 << 16, 1 << 20, 1 << 24 };
    struct gpu gpu;

    gpu_open(&gpu,
             &(struct wish){ .features = { .sparseBinding = VK_TRUE, .sparseResidencyBuffer = VK_TRUE } });
    for (size_t i = 0; i < LEN(sizes); i++) {
        uint8_t *expected = bytes_new(sizes[i]);

        for (enum bound bound = NONE; bound <= ODD; bound++)
            for (size_t way = 0; way < LEN(ways); way++) {
                struct holed holed = holed_new(&gpu, sizes[i], bound);

                ways[way](&gpu, &holed, expected);
                holed_free(&gpu, &holed);
            }
        free(expected);
    }
    gpu_close(&gpu);
    return 0;
}
