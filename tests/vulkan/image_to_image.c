/*
 * vkCmdCopyImage: parts between images of different tiling, of different formats with texels of one size,
 * between mips, layers and the slices of a 3D image; what lies around the parts stays.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

struct side {
    const char *name;
    VkFormat format;
    VkImageTiling tiling;
    uint32_t width, height, depth, mips, layers;
};

static const struct side SIDES[] = {
    { "2D layers", VK_FORMAT_R8G8B8A8_UNORM, VK_IMAGE_TILING_OPTIMAL, 157, 83, 1, 3, 8 },
    { "3D", VK_FORMAT_R32_UINT, VK_IMAGE_TILING_OPTIMAL, 101, 61, 37, 2, 1 },
    { "2D linear", VK_FORMAT_R32_SFLOAT, VK_IMAGE_TILING_LINEAR, 119, 75, 1, 1, 1 },
    { "2D large", VK_FORMAT_A2B10G10R10_UNORM_PACK32, VK_IMAGE_TILING_OPTIMAL, 1031, 517, 1, 1, 2 },
};
static const uint32_t TEXEL = 4;

/* The same image in its packed form beside it. */
struct pair {
    const struct side *side;
    struct image image;
    uint8_t *packed;
    VkDeviceSize size;
};

static void transfer(const struct gpu *gpu, struct pair *pair, struct buffer *buffer, bool first)
{
    VkCommandBuffer commands = commands_begin(gpu);

    if (first) {
        image_ready(commands, &pair->image);
        image_upload(commands, &pair->image, buffer);
    } else {
        image_download(commands, &pair->image, buffer);
    }
    commands_run(gpu, commands);
}

static struct pair pair_new(const struct gpu *gpu, const struct side *side, uint32_t seed)
{
    VkImageCreateInfo info = image_info(side->format, side->width, side->height, side->depth);
    struct pair pair = { .side = side };
    struct buffer in;

    info.tiling = side->tiling;
    info.mipLevels = side->mips;
    info.arrayLayers = side->layers;
    CHECK(image_supported(gpu, &info), "no image %s", side->name);
    pair.image = image_new(gpu, &info, 0);
    pair.size = packed_offset(&pair.image, side->mips);
    pair.packed = bytes_new(pair.size);
    pattern(pair.packed, pair.size, seed, 0);
    in = buffer_new(gpu, pair.size, HOST);
    memcpy(in.bytes, pair.packed, pair.size);
    transfer(gpu, &pair, &in, true);
    buffer_free(gpu, &in);
    return pair;
}

static void pair_free(const struct gpu *gpu, struct pair *pair)
{
    image_free(gpu, &pair->image);
    free(pair->packed);
}

/* A texel of a mip; z counts slices of a 3D image and layers of another. */
static uint8_t *texel(const struct pair *pair, uint32_t mip, uint32_t x, uint32_t y, uint32_t z)
{
    VkExtent3D extent = mip_extent(&pair->image, mip);

    return pair->packed + packed_offset(&pair->image, mip) +
           ((VkDeviceSize)(z * extent.height + y) * extent.width + x) * TEXEL;
}

struct end { /* of a copy */
    uint32_t mip, x, y, z;
};

static VkImageSubresourceLayers layers_of(const struct pair *pair, const struct end *end, uint32_t count)
{
    bool is_3d = pair->side->depth > 1;

    return (VkImageSubresourceLayers){ VK_IMAGE_ASPECT_COLOR_BIT, end->mip, is_3d ? 0 : end->z,
                                       is_3d ? 1 : count };
}

static VkOffset3D offset_of(const struct pair *pair, const struct end *end)
{
    return (VkOffset3D){ (int32_t)end->x, (int32_t)end->y, pair->side->depth > 1 ? (int32_t)end->z : 0 };
}

static void copy(VkCommandBuffer commands, const struct pair *from, struct end at, struct pair *to,
                 struct end be, VkExtent3D size)
{
    bool is_3d = from->side->depth > 1 || to->side->depth > 1;

    vkCmdCopyImage(commands, from->image.handle, VK_IMAGE_LAYOUT_GENERAL, to->image.handle,
                   VK_IMAGE_LAYOUT_GENERAL, 1,
                   &(VkImageCopy){ layers_of(from, &at, size.depth),
                                   offset_of(from, &at),
                                   layers_of(to, &be, size.depth),
                                   offset_of(to, &be),
                                   { size.width, size.height, is_3d ? size.depth : 1 } });
    commands_barrier(commands);
    for (uint32_t z = 0; z < size.depth; z++)
        for (uint32_t y = 0; y < size.height; y++)
            memcpy(texel(to, be.mip, be.x, be.y + y, be.z + z), texel(from, at.mip, at.x, at.y + y, at.z + z),
                   (size_t)size.width * TEXEL);
}

static void run(const struct gpu *gpu, const struct side *a, const struct side *b)
{
    struct pair from = pair_new(gpu, a, 1), to = pair_new(gpu, b, 2);
    bool deep = (a->depth > 1 || a->layers > 1) && (b->depth > 1 || b->layers > 1);
    struct buffer out = buffer_new(gpu, to.size, HOST);
    VkCommandBuffer commands = commands_begin(gpu);

    copy(commands, &from, (struct end){ 0, 0, 0, 0 }, &to, (struct end){ 0, 0, 0, 0 },
         (VkExtent3D){ 1, 1, 1 });
    copy(commands, &from, (struct end){ 0, 5, 9, 0 }, &to, (struct end){ 0, 64, 16, 0 },
         (VkExtent3D){ 37, 41, 1 });
    copy(commands, &from, (struct end){ 0, a->width - 19, a->height - 33, 0 }, &to,
         (struct end){ 0, b->width - 19, b->height - 33, 0 }, (VkExtent3D){ 19, 33, 1 });
    if (deep)
        copy(commands, &from, (struct end){ 0, 2, 3, 0 }, &to, (struct end){ 0, 8, 1, 0 },
             (VkExtent3D){ 64, 48, 2 });
    if (deep && a->mips > 1 && b->mips > 1)
        copy(commands, &from, (struct end){ 1, 1, 1, 3 }, &to, (struct end){ 1, 3, 5, 2 },
             (VkExtent3D){ 45, 23, 5 });
    commands_run(gpu, commands);
    transfer(gpu, &to, &out, false);
    SAME(out.bytes, to.packed, to.size, "%s copied to %s", a->name, b->name);
    verified("%s copied to %s", a->name, b->name);
    buffer_free(gpu, &out);
    pair_free(gpu, &from);
    pair_free(gpu, &to);
}

int main(void)
{
    struct gpu gpu;

    gpu_open(&gpu, NULL);
    for (size_t i = 0; i < LEN(SIDES); i++)
        for (size_t j = 0; j < LEN(SIDES); j++)
            run(&gpu, &SIDES[i], &SIDES[j]);
    gpu_close(&gpu);
    return 0;
}
