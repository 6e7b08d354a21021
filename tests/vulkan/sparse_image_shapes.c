/*
 * What the driver says of sparse blocks: the standard shapes where it promises them, in the properties of the
 * format as in the image's requirements; sizes, alignment and mip tails that agree with each other. The cases
 * of CTS sparse_resources.image_block_shapes and aligned_mip_size, without samples.
 */
#include "vk.h"

static const struct {
    uint32_t texel; /* bytes */
    VkExtent3D flat, deep;
} STANDARD[] = {
    { 1, { 256, 256, 1 }, { 64, 32, 32 } }, { 2, { 256, 128, 1 }, { 32, 32, 32 } },
    { 4, { 128, 128, 1 }, { 32, 32, 16 } }, { 8, { 128, 64, 1 }, { 32, 16, 16 } },
    { 16, { 64, 64, 1 }, { 16, 16, 16 } },
};

static void check_extent(VkExtent3D got, VkExtent3D expected)
{
    EQUAL(got.width, expected.width);
    EQUAL(got.height, expected.height);
    EQUAL(got.depth, expected.depth);
}

static void run(const struct gpu *gpu, const VkImageCreateInfo *info)
{
    const VkPhysicalDeviceSparseProperties *says = &gpu->properties.sparseProperties;
    bool deep = info->extent.depth > 1;
    VkSparseImageFormatProperties of_format;
    uint32_t count = 1;
    struct image image = image_sparse(gpu, info);
    struct blocks blocks = blocks_of(gpu, &image);
    VkMemoryRequirements needs = image_needs(gpu, image.handle);
    VkDeviceSize all = blocks_size(&image, &blocks) + tails_size(&blocks);

    vkGetPhysicalDeviceSparseImageFormatProperties(gpu->physical, info->format, info->imageType,
                                                   info->samples, info->usage, info->tiling, &count,
                                                   &of_format);
    EQUAL(count, 1);
    check_extent(blocks.extent, of_format.imageGranularity);
    EQUAL(of_format.flags & ~(VkFlags)VK_SPARSE_IMAGE_FORMAT_SINGLE_MIPTAIL_BIT,
          blocks.needs.formatProperties.flags & ~(VkFlags)VK_SPARSE_IMAGE_FORMAT_SINGLE_MIPTAIL_BIT);
    if (deep ? says->residencyStandard3DBlockShape : says->residencyStandard2DBlockShape) {
        EQUAL(of_format.flags & VK_SPARSE_IMAGE_FORMAT_NONSTANDARD_BLOCK_SIZE_BIT, 0);
        EQUAL(blocks.size, 64 * KIB);
        for (size_t i = 0; i < LEN(STANDARD); i++)
            if (STANDARD[i].texel == texel_size(info->format))
                check_extent(blocks.extent, deep ? STANDARD[i].deep : STANDARD[i].flat);
    }
    /* Unless the format says so, a mip is in the tail only if a side of it is less than a block. */
    if (!(of_format.flags & VK_SPARSE_IMAGE_FORMAT_ALIGNED_MIP_SIZE_BIT) && blocks.tail < info->mipLevels) {
        VkExtent3D first = mip_extent(&image, blocks.tail);

        CHECK(first.width < blocks.extent.width || first.height < blocks.extent.height ||
                  first.depth < blocks.extent.depth,
              "mip %u (%ux%ux%u) is in the tail but no side is less than a block", blocks.tail, first.width,
              first.height, first.depth);
    }
    EQUAL(needs.size % needs.alignment, 0);
    CHECK(needs.size >= all, "%llu bytes needed, blocks and tails have %llu", (unsigned long long)needs.size,
          (unsigned long long)all);
    if (blocks.tails) {
        EQUAL(blocks.needs.imageMipTailOffset % blocks.size, 0);
        EQUAL(blocks.needs.imageMipTailSize % blocks.size, 0);
        CHECK(blocks.tails == 1 || blocks.needs.imageMipTailStride >= blocks.needs.imageMipTailSize,
              "stride %llu of tails of %llu", (unsigned long long)blocks.needs.imageMipTailStride,
              (unsigned long long)blocks.needs.imageMipTailSize);
    }
    verified("VkFormat %d, %ux%ux%u, %u layers: blocks of %ux%ux%u, %u tails from mip %u on", info->format,
             info->extent.width, info->extent.height, info->extent.depth, info->arrayLayers,
             blocks.extent.width, blocks.extent.height, blocks.extent.depth, blocks.tails, blocks.tail);
    image_free(gpu, &image);
}

int main(void)
{
    static const VkFormat formats[] = {
        VK_FORMAT_R8_UNORM,    VK_FORMAT_R16_UINT,
        VK_FORMAT_R8G8_UNORM,  VK_FORMAT_R8G8B8A8_UNORM,
        VK_FORMAT_R32_SFLOAT,  VK_FORMAT_R16G16B16A16_UINT,
        VK_FORMAT_R32G32_UINT, VK_FORMAT_R32G32B32A32_SFLOAT,
    };
    static const struct {
        uint32_t width, height, depth, layers, mips;
    } shapes[] = {
        { 512, 256, 1, 1, 10 }, { 512, 256, 1, 6, 10 }, { 503, 137, 1, 3, 9 }, { 512, 256, 16, 1, 10 }
    };
    struct gpu gpu;

    gpu_open(&gpu, &(struct wish){ .features = { .sparseBinding = VK_TRUE,
                                                 .sparseResidencyImage2D = VK_TRUE,
                                                 .sparseResidencyImage3D = VK_TRUE } });
    for (size_t i = 0; i < LEN(formats); i++)
        for (size_t j = 0; j < LEN(shapes); j++) {
            VkImageCreateInfo info =
                image_info(formats[i], shapes[j].width, shapes[j].height, shapes[j].depth);

            info.flags = VK_IMAGE_CREATE_SPARSE_BINDING_BIT | VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT;
            info.arrayLayers = shapes[j].layers;
            info.mipLevels = shapes[j].mips;
            if (blocks_supported(&gpu, &info))
                run(&gpu, &info);
            else
                verified("(no sparse image of VkFormat %d)", formats[i]);
        }
    gpu_close(&gpu);
    return 0;
}
