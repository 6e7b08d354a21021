/* Sparse memory: a part of vk.h. */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

void sparse_bind(const struct gpu *gpu, const VkBindSparseInfo *info)
{
    VkFence fence = fence_new(gpu, false);

    VK(vkQueueBindSparse(gpu->sparse->handle, 1, info, fence));
    VK(vkWaitForFences(gpu->device, 1, &fence, VK_TRUE, PATIENCE));
    vkDestroyFence(gpu->device, fence, NULL);
}

void sparse_bind_buffer(const struct gpu *gpu, VkBuffer buffer, const VkSparseMemoryBind *binds,
                        uint32_t count)
{
    sparse_bind(gpu, &(VkBindSparseInfo){ .sType = VK_STRUCTURE_TYPE_BIND_SPARSE_INFO,
                                          .bufferBindCount = 1,
                                          .pBufferBinds = &(VkSparseBufferMemoryBindInfo){
                                              .buffer = buffer, .bindCount = count, .pBinds = binds } });
}

void bind_every(const struct gpu *gpu, const struct buffer *buffer, VkDeviceMemory memory, uint32_t first,
                uint32_t step)
{
    VkMemoryRequirements needs = buffer_needs(gpu, buffer->handle);
    VkDeviceSize block = needs.alignment;
    VkSparseMemoryBind *binds = bytes_new(needs.size / block * sizeof *binds);
    uint32_t count = 0;

    for (VkDeviceSize at = first * block; at < needs.size; at += step * block)
        binds[count++] = (VkSparseMemoryBind){ at, block, memory, memory ? at : 0, 0 };
    if (count)
        sparse_bind_buffer(gpu, buffer->handle, binds, count);
    free(binds);
}

bool blocks_supported(const struct gpu *gpu, const VkImageCreateInfo *info)
{
    uint32_t count = 0;

    vkGetPhysicalDeviceSparseImageFormatProperties(gpu->physical, info->format, info->imageType,
                                                   info->samples, info->usage, info->tiling, &count, NULL);
    return count > 0 && image_supported(gpu, info);
}

struct blocks blocks_of(const struct gpu *gpu, const struct image *image)
{
    VkMemoryRequirements memory = image_needs(gpu, image->handle);
    struct blocks blocks = { .size = memory.alignment, .type_bits = memory.memoryTypeBits };
    VkSparseImageMemoryRequirements *needs = &blocks.needs;
    uint32_t count = 1;

    vkGetImageSparseMemoryRequirements(gpu->device, image->handle, &count, needs);
    EQUAL(count, 1);
    EQUAL(needs->formatProperties.aspectMask, VK_IMAGE_ASPECT_COLOR_BIT);
    blocks.extent = needs->formatProperties.imageGranularity;
    blocks.tail = needs->imageMipTailFirstLod;
    if (blocks.tail < image->info.mipLevels) {
        bool single = needs->formatProperties.flags & VK_SPARSE_IMAGE_FORMAT_SINGLE_MIPTAIL_BIT;

        blocks.tails = single ? 1 : image->info.arrayLayers;
        CHECK(needs->imageMipTailSize, "a mip tail from mip %u on without bytes", blocks.tail);
    } else {
        blocks.tail = image->info.mipLevels;
    }
    return blocks;
}

VkExtent3D blocks_in(const struct image *image, const struct blocks *blocks, uint32_t mip)
{
    VkExtent3D texels = mip_extent(image, mip);

    return (VkExtent3D){ (texels.width + blocks->extent.width - 1) / blocks->extent.width,
                         (texels.height + blocks->extent.height - 1) / blocks->extent.height,
                         (texels.depth + blocks->extent.depth - 1) / blocks->extent.depth };
}

VkDeviceSize blocks_size(const struct image *image, const struct blocks *blocks)
{
    VkDeviceSize count = 0;

    for (uint32_t mip = 0; mip < blocks->tail; mip++) {
        VkExtent3D in = blocks_in(image, blocks, mip);

        count += (VkDeviceSize)in.width * in.height * in.depth;
    }
    return count * image->info.arrayLayers * blocks->size;
}

VkDeviceSize tails_size(const struct blocks *blocks)
{
    return blocks->tails * blocks->needs.imageMipTailSize;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static VkSparseImageMemoryBind block_bind(const struct image *image, const struct blocks *blocks,
                                          const struct place *place)
{
    VkExtent3D texels = mip_extent(image, place->mip), block = blocks->extent;
    uint32_t x = place->x * block.width, y = place->y * block.height, z = place->z * block.depth;

    return (VkSparseImageMemoryBind){
        .subresource = { VK_IMAGE_ASPECT_COLOR_BIT, place->mip, place->layer },
        .offset = { (int32_t)x, (int32_t)y, (int32_t)z },
        .extent = { least(block.width, texels.width - x), least(block.height, texels.height - y),
                    least(block.depth, texels.depth - z) },
    };
}

/* Every block outside of mip tails, in order; false at the end. Begin with a place of zeros and *begun
 * false. */
static bool next_place(const struct image *image, const struct blocks *blocks, struct place *place,
                       bool *begun)
{
    VkExtent3D in;

    if (!*begun) {
        *begun = true;
        return blocks->tail > 0;
    }
    in = blocks_in(image, blocks, place->mip);
    if (++place->x < in.width)
        return true;
    place->x = 0;
    if (++place->y < in.height)
        return true;
    place->y = 0;
    if (++place->z < in.depth)
        return true;
    place->z = 0;
    if (++place->layer < image->info.arrayLayers)
        return true;
    place->layer = 0;
    return ++place->mip < blocks->tail;
}

void bind_blocks(const struct gpu *gpu, const struct image *image, const struct blocks *blocks,
                 VkDeviceMemory memory, VkDeviceSize offset, choice *chosen)
{
    VkSparseImageMemoryBind *binds = bytes_new(blocks_size(image, blocks) / blocks->size * sizeof *binds);
    VkSparseImageMemoryBindInfo info = { .image = image->handle, .pBinds = binds };
    struct place place = { 0 };

    for (bool begun = false; next_place(image, blocks, &place, &begun);) {
        if (chosen && !chosen(&place))
            continue;
        binds[info.bindCount] = block_bind(image, blocks, &place);
        if (memory) {
            binds[info.bindCount].memory = memory;
            binds[info.bindCount].memoryOffset = offset;
            offset += blocks->size;
        }
        info.bindCount++;
    }
    if (info.bindCount)
        sparse_bind(gpu, &(VkBindSparseInfo){ .sType = VK_STRUCTURE_TYPE_BIND_SPARSE_INFO,
                                              .imageBindCount = 1,
                                              .pImageBinds = &info });
    free(binds);
}

void bind_tails(const struct gpu *gpu, const struct image *image, const struct blocks *blocks,
                VkDeviceMemory memory, VkDeviceSize offset)
{
    VkSparseMemoryBind *binds = bytes_new(blocks->tails * sizeof *binds);

    for (uint32_t i = 0; i < blocks->tails; i++)
        binds[i] = (VkSparseMemoryBind){
            .resourceOffset = blocks->needs.imageMipTailOffset + i * blocks->needs.imageMipTailStride,
            .size = blocks->needs.imageMipTailSize,
            .memory = memory,
            .memoryOffset = memory ? offset + i * blocks->needs.imageMipTailSize : 0,
        };
    if (blocks->tails)
        sparse_bind(gpu, &(VkBindSparseInfo){
                             .sType = VK_STRUCTURE_TYPE_BIND_SPARSE_INFO,
                             .imageOpaqueBindCount = 1,
                             .pImageOpaqueBinds = &(VkSparseImageOpaqueMemoryBindInfo){
                                 .image = image->handle, .bindCount = blocks->tails, .pBinds = binds } });
    free(binds);
}

void packed_take(const struct image *image, const struct blocks *blocks, uint8_t *to, const uint8_t *from,
                 choice *chosen)
{
    uint32_t texel = texel_size(image->info.format);
    size_t at = 0;

    for (uint32_t mip = 0; mip < image->info.mipLevels; mip++) {
        VkExtent3D texels = mip_extent(image, mip), block = blocks->extent;

        for (uint32_t layer = 0; layer < image->info.arrayLayers; layer++)
            for (uint32_t z = 0; z < texels.depth; z++)
                for (uint32_t y = 0; y < texels.height; y++)
                    for (uint32_t x = 0; x < texels.width; x++, at += texel) {
                        struct place place = { mip, layer, x / block.width, y / block.height,
                                               z / block.depth };

                        if (mip >= blocks->tail)
                            place = (struct place){ blocks->tail, layer, 0, 0, 0 };
                        if (chosen && !chosen(&place))
                            continue;
                        if (from)
                            memcpy(to + at, from + at, texel);
                        else
                            memset(to + at, 0, texel);
                    }
    }
}
