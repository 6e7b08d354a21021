/*
 * Mip tails, one per layer or one for all: unbound they read as zero (residencyNonResidentStrict), bound
 * layer by layer each keeps its own bytes, bound block by block they are whole, rebound they show the
 * other memory. Nothing outside of the tails is bound.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

static uint32_t first_tail_mip;
static uint32_t bound_layers; /* the tails of the layers below this one are bound */

static bool missing(const struct place *place)
{
    return place->mip < first_tail_mip || place->layer >= bound_layers;
}

struct tail_case {
    const struct gpu *gpu;
    struct image image;
    struct blocks blocks;
    struct buffer in, out;
};

/* Block by block, and the last block first in memory. */
static void bind_tail(const struct tail_case *it, uint32_t tail, VkDeviceMemory memory, VkDeviceSize offset)
{
    const VkSparseImageMemoryRequirements *needs = &it->blocks.needs;
    VkDeviceSize at = needs->imageMipTailOffset + tail * needs->imageMipTailStride, block = it->blocks.size;
    uint32_t count = (uint32_t)(needs->imageMipTailSize / block);
    VkSparseMemoryBind *binds = bytes_new(count * sizeof *binds);

    EQUAL(needs->imageMipTailSize % block, 0);
    for (uint32_t i = 0; i < count; i++)
        binds[i] = (VkSparseMemoryBind){ at + i * block, block, memory, offset + (count - 1 - i) * block, 0 };
    sparse_bind(it->gpu, &(VkBindSparseInfo){ .sType = VK_STRUCTURE_TYPE_BIND_SPARSE_INFO,
                                              .imageOpaqueBindCount = 1,
                                              .pImageOpaqueBinds = &(VkSparseImageOpaqueMemoryBindInfo){
                                                  it->image.handle, count, binds } });
    free(binds);
}

static void write_all(const struct tail_case *it, uint32_t seed)
{
    VkCommandBuffer commands = commands_begin(it->gpu);

    pattern(it->in.bytes, it->in.size, seed, 0);
    image_ready(commands, &it->image);
    image_upload(commands, &it->image, &it->in);
    commands_run(it->gpu, commands);
}

static void check(const struct tail_case *it, const char *what)
{
    bool strict = it->gpu->properties.sparseProperties.residencyNonResidentStrict;
    uint8_t *expected = bytes_new(it->in.size);
    VkCommandBuffer commands = commands_begin(it->gpu);

    memset(it->out.bytes, 0x5a, it->out.size);
    image_download(commands, &it->image, &it->out);
    commands_run(it->gpu, commands);
    memcpy(expected, it->in.bytes, it->in.size);
    packed_take(&it->image, &it->blocks, expected, strict ? NULL : it->out.bytes, missing);
    SAME(it->out.bytes, expected, it->out.size, "VkFormat %d, %s, %u layers bound", it->image.info.format,
         what, bound_layers);
    free(expected);
}

static void run(const struct gpu *gpu, const VkImageCreateInfo *info, const char *name)
{
    struct tail_case it = { .gpu = gpu, .image = image_sparse(gpu, info) };
    VkDeviceMemory memories[2];

    it.blocks = blocks_of(gpu, &it.image);
    if (!it.blocks.tails)
        lacks("mip tails (%s, %u mips)", name, info->mipLevels);
    it.in = buffer_new(gpu, packed_offset(&it.image, info->mipLevels), HOST);
    it.out = buffer_new(gpu, it.in.size, HOST);
    for (uint32_t i = 0; i < 2; i++)
        memories[i] = memory_new(gpu, tails_size(&it.blocks), it.blocks.type_bits, 0);
    first_tail_mip = it.blocks.tail;

    bound_layers = 0;
    write_all(&it, 1);
    check(&it, "no tail");
    for (uint32_t tail = 0; tail < it.blocks.tails; tail++) {
        bind_tail(&it, tail, memories[0], tail * it.blocks.needs.imageMipTailSize);
        bound_layers = it.blocks.tails == 1 ? info->arrayLayers : tail + 1;
        write_all(&it, 2 + tail);
        check(&it, "a tail more");
    }
    bind_tails(gpu, &it.image, &it.blocks, memories[1], 0);
    write_all(&it, 100);
    check(&it, "another memory");
    for (uint32_t tail = 0; tail < it.blocks.tails; tail++)
        bind_tail(&it, tail, memories[0], tail * it.blocks.needs.imageMipTailSize);
    pattern(it.in.bytes, it.in.size, 1 + it.blocks.tails, 0);
    check(&it, "the first memory again");
    bind_tails(gpu, &it.image, &it.blocks, VK_NULL_HANDLE, 0);
    bound_layers = 0;
    check(&it, "unbound");
    verified("%s, VkFormat %d: %u tails of %llu KiB from mip %u of %u on", name, info->format,
             it.blocks.tails, (unsigned long long)(it.blocks.needs.imageMipTailSize / KIB), it.blocks.tail,
             info->mipLevels);
    image_free(gpu, &it.image);
    buffer_free(gpu, &it.in);
    buffer_free(gpu, &it.out);
    vkFreeMemory(gpu->device, memories[0], NULL);
    vkFreeMemory(gpu->device, memories[1], NULL);
}

int main(void)
{
    static const VkFormat formats[] = { VK_FORMAT_R8_UNORM, VK_FORMAT_R8G8B8A8_UNORM,
                                        VK_FORMAT_R32G32B32A32_UINT };
    struct gpu gpu;

    gpu_open(&gpu, &(struct wish){ .features = { .sparseBinding = VK_TRUE,
                                                 .sparseResidencyImage2D = VK_TRUE,
                                                 .sparseResidencyImage3D = VK_TRUE } });
    for (size_t i = 0; i < LEN(formats); i++)
        for (uint32_t shape = 0; shape < 3; shape++) {
            static const char *const names[] = { "2D", "2D array", "3D" };
            VkImageCreateInfo info = image_info(formats[i], shape == 1 ? 503 : 512, 256, shape == 2 ? 16 : 1);

            info.flags = VK_IMAGE_CREATE_SPARSE_BINDING_BIT | VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT;
            info.mipLevels = shape == 1 ? 9 : 10;
            info.arrayLayers = shape == 1 ? 5 : 1;
            if (blocks_supported(&gpu, &info))
                run(&gpu, &info, names[shape]);
            else
                verified("(no sparse image %s of VkFormat %d)", names[shape], formats[i]);
        }
    gpu_close(&gpu);
    return 0;
}
