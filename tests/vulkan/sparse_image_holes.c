/*
 * Sparse images with residency, some blocks and mip tails bound: what is written to the others is dropped and
 * reads as zero where the driver says so (residencyNonResidentStrict). Copied in and out through buffers, and
 * to another image; the cases of CTS sparse_resources.image_sparse_residency and mipmap_sparse_residency.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    uint32_t width, height, depth, mips, layers;
    bool cube;
} SHAPES[] = {
    { "2D", 512, 256, 1, 10, 1, false },       { "2D wide", 1024, 128, 1, 11, 1, false },
    { "2D odd", 503, 137, 1, 9, 1, false },    { "2D small", 11, 37, 1, 1, 1, false },
    { "2D array", 512, 256, 1, 10, 6, false }, { "2D array odd", 503, 137, 1, 9, 3, false },
    { "cube", 256, 256, 1, 9, 6, true },       { "cube array", 137, 137, 1, 8, 18, true },
    { "3D", 256, 256, 16, 9, 1, false },       { "3D odd", 503, 137, 3, 9, 1, false },
};

/* Which blocks are bound; in the mip tail of a layer, x, y and z are 0. */
static bool nothing(const struct place *place)
{
    (void)place;
    return false;
}

static bool every_second(const struct place *place)
{
    return (place->x + place->y + place->z + place->layer + place->mip) % 2 == 0;
}

static bool without_tail(const struct place *place)
{
    return place->mip == 0 && place->x % 3 != 1;
}

struct way {
    const char *name;
    choice *bound;
    bool tails;
};
static const struct way WAYS[] = { { "nothing", nothing, false },
                                   { "every second block and the tails", every_second, true },
                                   { "two thirds of mip 0", without_tail, false } };

static const struct way *way; /* of the case that runs */
static uint32_t first_tail_mip;

static bool hole(const struct place *place)
{
    return place->mip >= first_tail_mip ? !way->tails : !way->bound(place);
}

static void check(const struct gpu *gpu, const struct image *image, const struct blocks *blocks,
                  const struct buffer *out, const uint8_t *content, const char *what, const char *shape)
{
    uint8_t *expected = bytes_new(out->size);

    memcpy(expected, content, out->size);
    packed_take(image, blocks, expected,
                gpu->properties.sparseProperties.residencyNonResidentStrict ? NULL : out->bytes, hole);
    SAME(out->bytes, expected, out->size, "%s, VkFormat %d, bound: %s, %s", shape, image->info.format,
         way->name, what);
    free(expected);
}

static void run(const struct gpu *gpu, const VkImageCreateInfo *info, const char *shape)
{
    struct image image = image_sparse(gpu, info), other;
    VkImageCreateInfo other_info = *info;
    struct blocks blocks = blocks_of(gpu, &image);
    VkDeviceSize tails_at = blocks_size(&image, &blocks);
    VkDeviceMemory memory =
        memory_new(gpu, tails_at + tails_size(&blocks) + blocks.size, blocks.type_bits, 0);
    struct buffer in = buffer_new(gpu, packed_offset(&image, info->mipLevels), HOST);
    struct buffer out = buffer_new(gpu, in.size, HOST);
    VkImageCopy copies[16];
    VkCommandBuffer commands;

    first_tail_mip = blocks.tail;
    bind_blocks(gpu, &image, &blocks, memory, 0, way->bound);
    if (way->tails)
        bind_tails(gpu, &image, &blocks, memory, tails_at);
    pattern(in.bytes, in.size, 1, 0);
    memset(out.bytes, 0x5a, out.size);
    commands = commands_begin(gpu);
    image_ready(commands, &image);
    image_upload(commands, &image, &in);
    commands_barrier(commands);
    image_download(commands, &image, &out);
    commands_run(gpu, commands);
    check(gpu, &image, &blocks, &out, in.bytes, "copied to a buffer", shape);

    other_info.flags &= VK_IMAGE_CREATE_CUBE_COMPATIBLE_BIT;
    other = image_new(gpu, &other_info, 0);
    for (uint32_t mip = 0; mip < info->mipLevels; mip++) {
        VkImageSubresourceLayers layers = { VK_IMAGE_ASPECT_COLOR_BIT, mip, 0, info->arrayLayers };

        copies[mip] = (VkImageCopy){ layers, { 0, 0, 0 }, layers, { 0, 0, 0 }, mip_extent(&image, mip) };
    }
    commands = commands_begin(gpu);
    image_ready(commands, &other);
    vkCmdCopyImage(commands, image.handle, VK_IMAGE_LAYOUT_GENERAL, other.handle, VK_IMAGE_LAYOUT_GENERAL,
                   info->mipLevels, copies);
    commands_barrier(commands);
    image_download(commands, &other, &out);
    commands_run(gpu, commands);
    check(gpu, &image, &blocks, &out, in.bytes, "copied to an image", shape);
    verified("%s, VkFormat %d, bound: %s", shape, info->format, way->name);

    image_free(gpu, &image);
    image_free(gpu, &other);
    buffer_free(gpu, &in);
    buffer_free(gpu, &out);
    vkFreeMemory(gpu->device, memory, NULL);
}

int main(void)
{
    static const VkFormat formats[] = { VK_FORMAT_R8_UNORM, VK_FORMAT_R16_UINT, VK_FORMAT_R8G8B8A8_UNORM,
                                        VK_FORMAT_R32G32B32A32_UINT };
    struct gpu gpu;

    gpu_open(&gpu, &(struct wish){ .features = { .sparseBinding = VK_TRUE,
                                                 .sparseResidencyImage2D = VK_TRUE,
                                                 .sparseResidencyImage3D = VK_TRUE,
                                                 .imageCubeArray = VK_TRUE } });
    for (size_t i = 0; i < LEN(SHAPES); i++)
        for (size_t j = 0; j < LEN(formats); j++) {
            VkImageCreateInfo info =
                image_info(formats[j], SHAPES[i].width, SHAPES[i].height, SHAPES[i].depth);

            info.flags = VK_IMAGE_CREATE_SPARSE_BINDING_BIT | VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT |
                         (SHAPES[i].cube ? VK_IMAGE_CREATE_CUBE_COMPATIBLE_BIT : 0);
            info.mipLevels = SHAPES[i].mips;
            info.arrayLayers = SHAPES[i].layers;
            if (!blocks_supported(&gpu, &info)) {
                verified("(no sparse image %s of VkFormat %d)", SHAPES[i].name, formats[j]);
                continue;
            }
            for (way = WAYS; way < WAYS + LEN(WAYS); way++)
                run(&gpu, &info, SHAPES[i].name);
        }
    gpu_close(&gpu);
    return 0;
}
