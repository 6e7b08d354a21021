/* Memory, buffers, images and commands: parts of vk.h, in its order. */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

static const VkBufferUsageFlags BUFFER_USAGE =
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;

/* ---- memory and buffers ---- */

uint32_t memory_type(const struct gpu *gpu, uint32_t type_bits, VkMemoryPropertyFlags flags)
{
    for (uint32_t i = 0; i < gpu->memory.memoryTypeCount; i++)
        if (type_bits >> i & 1 && (gpu->memory.memoryTypes[i].propertyFlags & flags) == flags)
            return i;
    fail(__FILE__, __LINE__, "no memory type among %#x with the flags %#x", type_bits, flags);
}

VkDeviceMemory memory_new(const struct gpu *gpu, VkDeviceSize size, uint32_t type_bits,
                          VkMemoryPropertyFlags flags)
{
    VkDeviceMemory memory;

    VK(vkAllocateMemory(gpu->device,
                        &(VkMemoryAllocateInfo){ .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                                 .allocationSize = size,
                                                 .memoryTypeIndex = memory_type(gpu, type_bits, flags) },
                        NULL, &memory));
    return memory;
}

void *memory_map(const struct gpu *gpu, VkDeviceMemory memory)
{
    void *bytes;

    VK(vkMapMemory(gpu->device, memory, 0, VK_WHOLE_SIZE, 0, &bytes));
    return bytes;
}

struct buffer buffer_sparse(const struct gpu *gpu, VkDeviceSize size, VkBufferCreateFlags flags)
{
    struct buffer buffer = { .size = size };

    VK(vkCreateBuffer(gpu->device,
                      &(VkBufferCreateInfo){ .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                             .flags = flags,
                                             .size = size,
                                             .usage = BUFFER_USAGE },
                      NULL, &buffer.handle));
    return buffer;
}

VkMemoryRequirements buffer_needs(const struct gpu *gpu, VkBuffer buffer)
{
    VkMemoryRequirements needs;

    vkGetBufferMemoryRequirements(gpu->device, buffer, &needs);
    return needs;
}

struct buffer buffer_new(const struct gpu *gpu, VkDeviceSize size, VkMemoryPropertyFlags flags)
{
    struct buffer buffer = buffer_sparse(gpu, size, 0);
    VkMemoryRequirements needs = buffer_needs(gpu, buffer.handle);

    buffer.memory = memory_new(gpu, needs.size, needs.memoryTypeBits, flags);
    VK(vkBindBufferMemory(gpu->device, buffer.handle, buffer.memory, 0));
    if (flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT)
        buffer.bytes = memory_map(gpu, buffer.memory);
    return buffer;
}

void buffer_free(const struct gpu *gpu, struct buffer *buffer)
{
    vkDestroyBuffer(gpu->device, buffer->handle, NULL);
    vkFreeMemory(gpu->device, buffer->memory, NULL);
    memset(buffer, 0, sizeof *buffer);
}

/* ---- images ---- */

VkImageCreateInfo image_info(VkFormat format, uint32_t width, uint32_t height, uint32_t depth)
{
    return (VkImageCreateInfo){
        .sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
        .imageType = depth > 1 ? VK_IMAGE_TYPE_3D
                     : height  ? VK_IMAGE_TYPE_2D
                               : VK_IMAGE_TYPE_1D,
        .format = format,
        .extent = { width, height ? height : 1, depth },
        .mipLevels = 1,
        .arrayLayers = 1,
        .samples = VK_SAMPLE_COUNT_1_BIT,
        .tiling = VK_IMAGE_TILING_OPTIMAL,
        .usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT,
        .initialLayout = VK_IMAGE_LAYOUT_UNDEFINED,
    };
}

bool image_supported(const struct gpu *gpu, const VkImageCreateInfo *info)
{
    VkImageFormatProperties offers;

    if (vkGetPhysicalDeviceImageFormatProperties(gpu->physical, info->format, info->imageType, info->tiling,
                                                 info->usage, info->flags, &offers) != VK_SUCCESS)
        return false;
    return info->extent.width <= offers.maxExtent.width && info->extent.height <= offers.maxExtent.height &&
           info->extent.depth <= offers.maxExtent.depth && info->mipLevels <= offers.maxMipLevels &&
           info->arrayLayers <= offers.maxArrayLayers && (info->samples & offers.sampleCounts);
}

struct image image_sparse(const struct gpu *gpu, const VkImageCreateInfo *info)
{
    struct image image = { .info = *info };

    VK(vkCreateImage(gpu->device, info, NULL, &image.handle));
    return image;
}

VkMemoryRequirements image_needs(const struct gpu *gpu, VkImage image)
{
    VkMemoryRequirements needs;

    vkGetImageMemoryRequirements(gpu->device, image, &needs);
    return needs;
}

struct image image_new(const struct gpu *gpu, const VkImageCreateInfo *info, VkMemoryPropertyFlags flags)
{
    struct image image = image_sparse(gpu, info);
    VkMemoryRequirements needs = image_needs(gpu, image.handle);

    image.memory = memory_new(gpu, needs.size, needs.memoryTypeBits, flags);
    VK(vkBindImageMemory(gpu->device, image.handle, image.memory, 0));
    return image;
}

void image_free(const struct gpu *gpu, struct image *image)
{
    vkDestroyImage(gpu->device, image->handle, NULL);
    vkFreeMemory(gpu->device, image->memory, NULL);
    memset(image, 0, sizeof *image);
}

static uint32_t minified(uint32_t extent, uint32_t mip)
{
    return extent >> mip ? extent >> mip : 1;
}

VkExtent3D mip_extent(const struct image *image, uint32_t mip)
{
    const VkExtent3D *whole = &image->info.extent;

    return (VkExtent3D){ minified(whole->width, mip), minified(whole->height, mip),
                         minified(whole->depth, mip) };
}

void image_ready(VkCommandBuffer commands, const struct image *image)
{
    image_ready_aspects(commands, image, VK_IMAGE_ASPECT_COLOR_BIT);
}

void image_ready_aspects(VkCommandBuffer commands, const struct image *image, VkImageAspectFlags aspects)
{
    vkCmdPipelineBarrier(
        commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, NULL, 0, NULL,
        1,
        &(VkImageMemoryBarrier){
            .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
            .dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
            .oldLayout = VK_IMAGE_LAYOUT_UNDEFINED,
            .newLayout = VK_IMAGE_LAYOUT_GENERAL,
            .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
            .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
            .image = image->handle,
            .subresourceRange = { aspects, 0, VK_REMAINING_MIP_LEVELS, 0, VK_REMAINING_ARRAY_LAYERS } });
}

uint32_t texel_size(VkFormat format)
{
    switch (format) {
    case VK_FORMAT_R8_UNORM:
    case VK_FORMAT_R8_UINT: return 1;
    case VK_FORMAT_R8G8_UNORM:
    case VK_FORMAT_R8G8_UINT:
    case VK_FORMAT_R16_UINT:
    case VK_FORMAT_R5G6B5_UNORM_PACK16:
    case VK_FORMAT_R16_UNORM: return 2;
    case VK_FORMAT_R8G8B8A8_UNORM:
    case VK_FORMAT_R8G8B8A8_UINT:
    case VK_FORMAT_B8G8R8A8_UNORM:
    case VK_FORMAT_A2B10G10R10_UNORM_PACK32:
    case VK_FORMAT_R16G16_UINT:
    case VK_FORMAT_R32_UINT:
    case VK_FORMAT_R32_SFLOAT: return 4;
    case VK_FORMAT_R16G16B16A16_UINT:
    case VK_FORMAT_R16G16B16A16_SFLOAT:
    case VK_FORMAT_R32G32_UINT: return 8;
    case VK_FORMAT_R32G32B32_UINT: return 12;
    case VK_FORMAT_R32G32B32A32_UINT:
    case VK_FORMAT_R32G32B32A32_SFLOAT: return 16;
    default: fail(__FILE__, __LINE__, "VkFormat %d is not in the table of texel sizes", format);
    }
}

VkDeviceSize packed_offset(const struct image *image, uint32_t mip)
{
    VkDeviceSize offset = 0;

    for (uint32_t i = 0; i < mip; i++) {
        VkExtent3D extent = mip_extent(image, i);

        offset += (VkDeviceSize)extent.width * extent.height * extent.depth * image->info.arrayLayers *
                  texel_size(image->info.format);
    }
    return offset;
}

static uint32_t whole_mips(const struct image *image, VkBufferImageCopy regions[16])
{
    for (uint32_t mip = 0; mip < image->info.mipLevels; mip++)
        regions[mip] = (VkBufferImageCopy){
            .bufferOffset = packed_offset(image, mip),
            .imageSubresource = { VK_IMAGE_ASPECT_COLOR_BIT, mip, 0, image->info.arrayLayers },
            .imageExtent = mip_extent(image, mip),
        };
    return image->info.mipLevels;
}

void image_upload(VkCommandBuffer commands, const struct image *image, const struct buffer *from)
{
    VkBufferImageCopy regions[16];
    uint32_t count = whole_mips(image, regions);

    vkCmdCopyBufferToImage(commands, from->handle, image->handle, VK_IMAGE_LAYOUT_GENERAL, count, regions);
}

void image_download(VkCommandBuffer commands, const struct image *image, const struct buffer *to)
{
    VkBufferImageCopy regions[16];
    uint32_t count = whole_mips(image, regions);

    vkCmdCopyImageToBuffer(commands, image->handle, VK_IMAGE_LAYOUT_GENERAL, to->handle, count, regions);
}

/* ---- commands ---- */

VkCommandBuffer commands_for(const struct gpu *gpu, const struct queue *queue)
{
    VkCommandBuffer commands;

    VK(vkAllocateCommandBuffers(
        gpu->device,
        &(VkCommandBufferAllocateInfo){ .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                        .commandPool = queue->pool,
                                        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                        .commandBufferCount = 1 },
        &commands));
    VK(vkBeginCommandBuffer(
        commands, &(VkCommandBufferBeginInfo){ .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO }));
    return commands;
}

VkCommandBuffer commands_begin(const struct gpu *gpu)
{
    return commands_for(gpu, gpu->queue);
}

void commands_barrier(VkCommandBuffer commands)
{
    vkCmdPipelineBarrier(
        commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT,
        VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT, 0, 1,
        &(VkMemoryBarrier){ .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                            .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
                            .dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT },
        0, NULL, 0, NULL);
}

void commands_run(const struct gpu *gpu, VkCommandBuffer commands)
{
    commands_barrier(commands);
    VK(vkEndCommandBuffer(commands));
    VK(submit_wait(gpu, gpu->queue->handle,
                   &(VkSubmitInfo){ .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                    .commandBufferCount = 1,
                                    .pCommandBuffers = &commands }));
    vkFreeCommandBuffers(gpu->device, gpu->queue->pool, 1, &commands);
}

void copy_now(const struct gpu *gpu, VkBuffer from, VkDeviceSize from_offset, VkBuffer to,
              VkDeviceSize to_offset, VkDeviceSize size)
{
    VkCommandBuffer commands = commands_begin(gpu);

    vkCmdCopyBuffer(commands, from, to, 1, &(VkBufferCopy){ from_offset, to_offset, size });
    commands_run(gpu, commands);
}

VkResult submit_wait(const struct gpu *gpu, VkQueue queue, const VkSubmitInfo *submit)
{
    VkFence fence = fence_new(gpu, false);
    VkResult result = vkQueueSubmit(queue, 1, submit, fence);

    if (result == VK_SUCCESS)
        result = vkWaitForFences(gpu->device, 1, &fence, VK_TRUE, PATIENCE);
    vkDestroyFence(gpu->device, fence, NULL);
    return result;
}

VkFence fence_new(const struct gpu *gpu, bool signalled)
{
    VkFence fence;

    VK(vkCreateFence(gpu->device,
                     &(VkFenceCreateInfo){ .sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO,
                                           .flags = signalled ? VK_FENCE_CREATE_SIGNALED_BIT : 0 },
                     NULL, &fence));
    return fence;
}

static VkSemaphore semaphore_of(const struct gpu *gpu, VkSemaphoreType type, uint64_t value)
{
    VkSemaphore semaphore;
    VkSemaphoreTypeCreateInfo kind = { .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                       .semaphoreType = type,
                                       .initialValue = value };

    VK(vkCreateSemaphore(
        gpu->device,
        &(VkSemaphoreCreateInfo){ .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &kind }, NULL,
        &semaphore));
    return semaphore;
}

VkSemaphore semaphore_new(const struct gpu *gpu)
{
    return semaphore_of(gpu, VK_SEMAPHORE_TYPE_BINARY, 0);
}

VkSemaphore timeline_new(const struct gpu *gpu, uint64_t value)
{
    return semaphore_of(gpu, VK_SEMAPHORE_TYPE_TIMELINE, value);
}
