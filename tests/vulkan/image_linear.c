/*
 * An image of linear tiling in memory that the host sees: what the host writes where
 * vkGetImageSubresourceLayout says is what a copy out of the image reads, and the reverse.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

static void run(const struct gpu *gpu, VkFormat format, uint32_t width, uint32_t height)
{
    VkImageCreateInfo info = image_info(format, width, height, 1);
    uint32_t row = width * texel_size(format);
    VkSubresourceLayout layout;
    struct image image;
    struct buffer packed = buffer_new(gpu, (VkDeviceSize)row * height, HOST);
    VkCommandBuffer commands;
    uint8_t *bytes;

    info.tiling = VK_IMAGE_TILING_LINEAR;
    info.initialLayout = VK_IMAGE_LAYOUT_PREINITIALIZED;
    CHECK(image_supported(gpu, &info), "no linear image of VkFormat %d", format);
    image = image_new(gpu, &info, HOST);
    vkGetImageSubresourceLayout(gpu->device, image.handle,
                                &(VkImageSubresource){ VK_IMAGE_ASPECT_COLOR_BIT, 0, 0 }, &layout);
    CHECK(layout.rowPitch >= row && layout.offset + layout.size <= image_needs(gpu, image.handle).size,
          "offset %llu, size %llu, row pitch %llu", (unsigned long long)layout.offset,
          (unsigned long long)layout.size, (unsigned long long)layout.rowPitch);
    bytes = memory_map(gpu, image.memory);

    for (uint32_t y = 0; y < height; y++)
        pattern(bytes + layout.offset + y * layout.rowPitch, row, 1, y * row);
    commands = commands_begin(gpu);
    vkCmdPipelineBarrier(
        commands, VK_PIPELINE_STAGE_HOST_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 0, NULL, 0, NULL, 1,
        &(VkImageMemoryBarrier){ .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
                                 .srcAccessMask = VK_ACCESS_HOST_WRITE_BIT,
                                 .dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT,
                                 .oldLayout = VK_IMAGE_LAYOUT_PREINITIALIZED,
                                 .newLayout = VK_IMAGE_LAYOUT_GENERAL,
                                 .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
                                 .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
                                 .image = image.handle,
                                 .subresourceRange = { VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1 } });
    image_download(commands, &image, &packed);
    commands_run(gpu, commands);
    for (uint32_t y = 0; y < height; y++)
        SAME(packed.bytes + (size_t)y * row, bytes + layout.offset + y * layout.rowPitch, row, "row %u read",
             y);

    pattern(packed.bytes, packed.size, 2, 0);
    commands = commands_begin(gpu);
    image_upload(commands, &image, &packed);
    commands_run(gpu, commands);
    for (uint32_t y = 0; y < height; y++)
        SAME(bytes + layout.offset + y * layout.rowPitch, packed.bytes + (size_t)y * row, row,
             "row %u written", y);
    verified("VkFormat %d, %ux%u: rows of %u bytes, %llu apart", format, width, height, row,
             (unsigned long long)layout.rowPitch);
    image_free(gpu, &image);
    buffer_free(gpu, &packed);
}

int main(void)
{
    static const VkFormat formats[] = { VK_FORMAT_R8_UNORM, VK_FORMAT_R8G8B8A8_UNORM,
                                        VK_FORMAT_B8G8R8A8_UNORM, VK_FORMAT_R32G32B32A32_SFLOAT };
    struct gpu gpu;

    gpu_open(&gpu, NULL);
    for (size_t i = 0; i < LEN(formats); i++) {
        run(&gpu, formats[i], 1, 1);
        run(&gpu, formats[i], 64, 64);
        run(&gpu, formats[i], 333, 77);
        run(&gpu, formats[i], 1000, 7);
    }
    gpu_close(&gpu);
    return 0;
}
