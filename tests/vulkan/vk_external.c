/* Buffers and semaphores that leave the device: the part "what leaves the device" of vk.h. */
#include "vk.h"

/* ---- buffers ---- */

static struct buffer external_buffer(const struct gpu *gpu, VkDeviceSize size, VkMemoryPropertyFlags flags,
                                     VkExternalMemoryHandleTypeFlagBits type, const void *how)
{
    struct buffer buffer = { .size = size };
    VkMemoryRequirements needs;

    VK(vkCreateBuffer(
        gpu->device,
        &(VkBufferCreateInfo){
            .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
            .pNext =
                &(VkExternalMemoryBufferCreateInfo){
                    .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, .handleTypes = type },
            .size = size,
            .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT },
        NULL, &buffer.handle));
    needs = buffer_needs(gpu, buffer.handle);
    VK(vkAllocateMemory(
        gpu->device,
        &(VkMemoryAllocateInfo){ .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                 .pNext = how,
                                 .allocationSize = needs.size,
                                 .memoryTypeIndex = memory_type(gpu, needs.memoryTypeBits, flags) },
        NULL, &buffer.memory));
    VK(vkBindBufferMemory(gpu->device, buffer.handle, buffer.memory, 0));
    if (flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT)
        buffer.bytes = memory_map(gpu, buffer.memory);
    return buffer;
}

struct buffer buffer_exported(const struct gpu *gpu, VkDeviceSize size, VkMemoryPropertyFlags flags,
                              VkExternalMemoryHandleTypeFlagBits type)
{
    return external_buffer(gpu, size, flags, type,
                           &(VkExportMemoryAllocateInfo){
                               .sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO, .handleTypes = type });
}

struct buffer buffer_imported(const struct gpu *gpu, VkDeviceSize size, VkMemoryPropertyFlags flags,
                              VkExternalMemoryHandleTypeFlagBits type, int fd)
{
    return external_buffer(gpu, size, flags, type,
                           &(VkImportMemoryFdInfoKHR){ .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                                       .handleType = type,
                                                       .fd = fd });
}

int buffer_fd(const struct gpu *gpu, const struct buffer *buffer, VkExternalMemoryHandleTypeFlagBits type)
{
    PFN_vkGetMemoryFdKHR get = (PFN_vkGetMemoryFdKHR)gpu_function(gpu, "vkGetMemoryFdKHR");
    int fd = -1;

    VK(get(gpu->device,
           &(VkMemoryGetFdInfoKHR){ .sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                    .memory = buffer->memory,
                                    .handleType = type },
           &fd));
    CHECK(fd >= 0, "vkGetMemoryFdKHR gave the descriptor %d", fd);
    return fd;
}

/* ---- semaphores ---- */

VkSemaphore semaphore_exported(const struct gpu *gpu, VkSemaphoreType kind,
                               VkExternalSemaphoreHandleTypeFlagBits type)
{
    VkSemaphoreTypeCreateInfo kind_info = { .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                            .semaphoreType = kind };
    VkSemaphore semaphore;

    VK(vkCreateSemaphore(
        gpu->device,
        &(VkSemaphoreCreateInfo){
            .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
            .pNext = &(VkExportSemaphoreCreateInfo){ .sType = VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO,
                                                     .pNext = &kind_info,
                                                     .handleTypes = type } },
        NULL, &semaphore));
    return semaphore;
}

int semaphore_fd(const struct gpu *gpu, VkSemaphore semaphore, VkExternalSemaphoreHandleTypeFlagBits type)
{
    PFN_vkGetSemaphoreFdKHR get = (PFN_vkGetSemaphoreFdKHR)gpu_function(gpu, "vkGetSemaphoreFdKHR");
    int fd = -2;

    VK(get(gpu->device,
           &(VkSemaphoreGetFdInfoKHR){ .sType = VK_STRUCTURE_TYPE_SEMAPHORE_GET_FD_INFO_KHR,
                                       .semaphore = semaphore,
                                       .handleType = type },
           &fd));
    CHECK(fd >= 0 || (fd == -1 && type == VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT),
          "vkGetSemaphoreFdKHR gave the descriptor %d", fd);
    return fd;
}

void semaphore_import(const struct gpu *gpu, VkSemaphore semaphore,
                      VkExternalSemaphoreHandleTypeFlagBits type, int fd)
{
    PFN_vkImportSemaphoreFdKHR import =
        (PFN_vkImportSemaphoreFdKHR)gpu_function(gpu, "vkImportSemaphoreFdKHR");

    VK(import(gpu->device,
              &(VkImportSemaphoreFdInfoKHR){ .sType = VK_STRUCTURE_TYPE_IMPORT_SEMAPHORE_FD_INFO_KHR,
                                             .semaphore = semaphore,
                                             .flags = type == VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT
                                                          ? VK_SEMAPHORE_IMPORT_TEMPORARY_BIT
                                                          : 0,
                                             .handleType = type,
                                             .fd = fd }));
}
