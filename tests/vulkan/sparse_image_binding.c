/*
 * Sparse images without residency: their memory bound as one opaque range in blocks of the alignment, each a
 * memory object of its own; with many binds in one info, many infos in one batch, many batches in one call.
 * The cases of CTS sparse_resources.image_sparse_binding.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

enum form { MANY_BINDS, MANY_INFOS, MANY_BATCHES };
static const char *const FORM[] = { "many binds in one info", "many infos in one batch", "many batches" };

static const struct {
    const char *name;
    uint32_t width, height, depth, layers; /* height 0: one dimension */
    bool cube;
} SHAPES[] = {
    { "1D", 1024, 0, 1, 1, false },     { "1D array", 512, 0, 1, 64, false },
    { "1D odd", 11, 0, 1, 3, false },   { "2D", 512, 256, 1, 1, false },
    { "2D odd", 11, 137, 1, 1, false }, { "2D array", 503, 137, 1, 6, false },
    { "cube", 137, 137, 1, 6, true },   { "cube array", 128, 128, 1, 18, true },
    { "3D", 512, 256, 6, 1, false },    { "3D odd", 11, 137, 3, 1, false },
};

/* All binds in one call; returns when they are done. */
static void bind(const struct gpu *gpu, VkImage image, VkSparseMemoryBind *binds, uint32_t count,
                 enum form form)
{
    VkSparseImageOpaqueMemoryBindInfo *infos = bytes_new(count * sizeof *infos);
    VkBindSparseInfo *batches = bytes_new(count * sizeof *batches);
    uint32_t info_count = form == MANY_BINDS ? 1 : count, batch_count = form == MANY_BATCHES ? count : 1;
    VkFence fence = fence_new(gpu, false);

    for (uint32_t i = 0; i < info_count; i++)
        infos[i] = (VkSparseImageOpaqueMemoryBindInfo){ image, count / info_count, binds + i };
    for (uint32_t i = 0; i < batch_count; i++)
        batches[i] = (VkBindSparseInfo){ .sType = VK_STRUCTURE_TYPE_BIND_SPARSE_INFO,
                                         .imageOpaqueBindCount = info_count / batch_count,
                                         .pImageOpaqueBinds = infos + i };
    VK(vkQueueBindSparse(gpu->sparse->handle, batch_count, batches, fence));
    VK(vkWaitForFences(gpu->device, 1, &fence, VK_TRUE, PATIENCE));
    vkDestroyFence(gpu->device, fence, NULL);
    free(infos);
    free(batches);
}

static void run(const struct gpu *gpu, const VkImageCreateInfo *info, enum form form, const char *name)
{
    struct image image = image_sparse(gpu, info);
    VkMemoryRequirements needs = image_needs(gpu, image.handle);
    uint32_t count = (uint32_t)(needs.size / needs.alignment);
    VkSparseMemoryBind *binds = bytes_new(count * sizeof *binds);
    struct buffer in = buffer_new(gpu, packed_offset(&image, info->mipLevels), HOST);
    struct buffer out = buffer_new(gpu, in.size, HOST);
    VkCommandBuffer commands;

    EQUAL(needs.size % needs.alignment, 0);
    for (uint32_t i = 0; i < count; i++)
        binds[i] =
            (VkSparseMemoryBind){ .resourceOffset = i * needs.alignment,
                                  .size = needs.alignment,
                                  .memory = memory_new(gpu, needs.alignment, needs.memoryTypeBits, 0) };
    bind(gpu, image.handle, binds, count, form);
    pattern(in.bytes, in.size, count, 0);
    memset(out.bytes, 0, out.size);
    commands = commands_begin(gpu);
    image_ready(commands, &image);
    image_upload(commands, &image, &in);
    commands_barrier(commands);
    image_download(commands, &image, &out);
    commands_run(gpu, commands);
    SAME(out.bytes, in.bytes, in.size, "%s, VkFormat %d, %s", name, info->format, FORM[form]);
    verified("%s, VkFormat %d, %u memory objects, %s", name, info->format, count, FORM[form]);
    image_free(gpu, &image);
    buffer_free(gpu, &in);
    buffer_free(gpu, &out);
    for (uint32_t i = 0; i < count; i++)
        vkFreeMemory(gpu->device, binds[i].memory, NULL);
    free(binds);
}

static uint32_t all_mips(const VkImageCreateInfo *info)
{
    uint32_t mips = 1;

    for (uint32_t side = info->extent.width | info->extent.height | info->extent.depth; side >>= 1;)
        mips++;
    return mips;
}

int main(void)
{
    static const VkFormat formats[] = { VK_FORMAT_R8_UNORM, VK_FORMAT_R8G8B8A8_UNORM, VK_FORMAT_R16_UINT,
                                        VK_FORMAT_R32G32B32A32_UINT };
    struct gpu gpu;

    gpu_open(&gpu, &(struct wish){ .features = { .sparseBinding = VK_TRUE, .imageCubeArray = VK_TRUE } });
    for (size_t i = 0; i < LEN(SHAPES); i++)
        for (size_t j = 0; j < LEN(formats); j++) {
            VkImageCreateInfo info =
                image_info(formats[j], SHAPES[i].width, SHAPES[i].height, SHAPES[i].depth);

            info.flags = VK_IMAGE_CREATE_SPARSE_BINDING_BIT |
                         (SHAPES[i].cube ? VK_IMAGE_CREATE_CUBE_COMPATIBLE_BIT : 0);
            info.arrayLayers = SHAPES[i].layers;
            info.mipLevels = all_mips(&info);
            if (image_supported(&gpu, &info))
                run(&gpu, &info, (enum form)((i + j) % 3), SHAPES[i].name);
            else
                verified("(no sparse image %s of VkFormat %d)", SHAPES[i].name, formats[j]);
        }
    gpu_close(&gpu);
    return 0;
}
