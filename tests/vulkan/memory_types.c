/*
 * Heaps, types, limits and the budget: that they are in the order and of the kinds that Vulkan promises, that
 * memory of every type can be had and used, and that VK_EXT_memory_budget follows what is allocated.
 * Argument: the MiB of device memory that the device was given, if they are to be compared.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

static void heaps(const struct gpu *gpu, const char *vram)
{
    VkDeviceSize local = 0;

    for (uint32_t i = 0; i < gpu->memory.memoryHeapCount; i++) {
        const VkMemoryHeap *heap = &gpu->memory.memoryHeaps[i];

        CHECK(heap->size >= 64 * MIB, "heap %u has %llu bytes", i, (unsigned long long)heap->size);
        if (heap->flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT && !local)
            local = heap->size;
    }
    CHECK(local, "no heap is DEVICE_LOCAL");
    if (vram)
        EQUAL(local, strtoull(vram, NULL, 0) * MIB);
    verified("%u heaps, the first of the device with %llu MiB", gpu->memory.memoryHeapCount,
             (unsigned long long)(local / MIB));
}

/* If one type's flags are a proper subset of another's of the same heap, it comes first. */
static void types(const struct gpu *gpu)
{
    const VkPhysicalDeviceMemoryProperties *memory = &gpu->memory;
    bool coherent = false, local = false;

    for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
        VkMemoryPropertyFlags flags = memory->memoryTypes[i].propertyFlags;
        uint32_t heap = memory->memoryTypes[i].heapIndex;
        bool of_local_heap;

        CHECK(heap < memory->memoryHeapCount, "type %u has heap %u", i, heap);
        of_local_heap = memory->memoryHeaps[heap].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT;
        EQUAL((flags & LOCAL) != 0, of_local_heap);
        CHECK(flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT ||
                  !(flags & (HOST | VK_MEMORY_PROPERTY_HOST_CACHED_BIT)),
              "type %u is coherent or cached but not visible: %#x", i, flags);
        for (uint32_t j = 0; j < i; j++) {
            VkMemoryPropertyFlags earlier = memory->memoryTypes[j].propertyFlags;

            CHECK(memory->memoryTypes[j].heapIndex != heap || earlier == flags || (earlier & flags) != flags,
                  "type %u (%#x) comes before its subset %u (%#x)", j, earlier, i, flags);
        }
        coherent |= (flags & HOST) == HOST;
        local |= (flags & LOCAL) != 0;
    }
    CHECK(coherent && local, "HOST_COHERENT: %d, DEVICE_LOCAL: %d", coherent, local);
    verified("%u types in their order", memory->memoryTypeCount);
}

static void limits(const struct gpu *gpu)
{
    const VkPhysicalDeviceLimits *limits = &gpu->properties.limits;

    CHECK(limits->maxMemoryAllocationCount >= 4096, "%u", limits->maxMemoryAllocationCount);
    CHECK(limits->minMemoryMapAlignment >= 64, "%zu", limits->minMemoryMapAlignment);
    CHECK(limits->sparseAddressSpaceSize >= 1ull << 31, "%llu",
          (unsigned long long)limits->sparseAddressSpaceSize);
    verified("limits are at least what Vulkan requires");
}

/* A buffer of 1 MiB at an offset in memory of each type, written and read by copies. */
static void use_each(const struct gpu *gpu)
{
    struct buffer in = buffer_new(gpu, 1 * MIB, HOST), out = buffer_new(gpu, 1 * MIB, HOST);

    for (uint32_t i = 0; i < gpu->memory.memoryTypeCount; i++) {
        struct buffer buffer = buffer_sparse(gpu, 1 * MIB, 0);
        VkMemoryRequirements needs = buffer_needs(gpu, buffer.handle);

        if (!(needs.memoryTypeBits >> i & 1))
            continue;
        buffer.memory = memory_new(gpu, 4 * MIB, 1u << i, 0);
        VK(vkBindBufferMemory(gpu->device, buffer.handle, buffer.memory, 3 * needs.alignment));
        pattern(in.bytes, in.size, i, 0);
        copy_now(gpu, in.handle, 0, buffer.handle, 0, in.size);
        copy_now(gpu, buffer.handle, 0, out.handle, 0, in.size);
        SAME(out.bytes, in.bytes, in.size, "memory of type %u", i);
        if (gpu->memory.memoryTypes[i].propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT)
            SAME((uint8_t *)memory_map(gpu, buffer.memory) + 3 * needs.alignment, in.bytes, in.size,
                 "the mapping of memory of type %u", i);
        buffer_free(gpu, &buffer);
    }
    buffer_free(gpu, &in);
    buffer_free(gpu, &out);
    verified("memory of each type holds what is written");
}

static VkPhysicalDeviceMemoryBudgetPropertiesEXT budget_now(const struct gpu *gpu)
{
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT
    };

    vkGetPhysicalDeviceMemoryProperties2(
        gpu->physical,
        &(VkPhysicalDeviceMemoryProperties2){ .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
                                              .pNext = &budget });
    return budget;
}

static void budget(const struct gpu *gpu)
{
    uint32_t heap = gpu->memory.memoryTypes[memory_type(gpu, ~0u, LOCAL)].heapIndex;
    VkDeviceSize size = gpu->memory.memoryHeaps[heap].size;
    VkPhysicalDeviceMemoryBudgetPropertiesEXT before = budget_now(gpu), held, after;
    VkDeviceMemory memory;

    CHECK(before.heapBudget[heap] > 0 && before.heapBudget[heap] <= size, "budget %llu of %llu",
          (unsigned long long)before.heapBudget[heap], (unsigned long long)size);
    memory = memory_new(gpu, 32 * MIB, ~0u, LOCAL);
    held = budget_now(gpu);
    vkFreeMemory(gpu->device, memory, NULL);
    after = budget_now(gpu);
    if (!held.heapUsage[heap])
        lacks("a count of the memory that is used (VK_EXT_memory_budget)");
    CHECK(held.heapUsage[heap] >= before.heapUsage[heap] + 32 * MIB, "usage %llu, with 32 MiB more %llu",
          (unsigned long long)before.heapUsage[heap], (unsigned long long)held.heapUsage[heap]);
    CHECK(held.heapUsage[heap] <= size && held.heapBudget[heap] <= size, "usage %llu, budget %llu of %llu",
          (unsigned long long)held.heapUsage[heap], (unsigned long long)held.heapBudget[heap],
          (unsigned long long)size);
    EQUAL(after.heapUsage[heap], before.heapUsage[heap]);
    verified("the budget follows 32 MiB allocated and freed");
}

int main(int argc, char **argv)
{
    struct gpu gpu;

    gpu_open(&gpu, &(struct wish){ .extensions = { VK_EXT_MEMORY_BUDGET_EXTENSION_NAME } });
    heaps(&gpu, argc > 1 ? argv[1] : NULL);
    types(&gpu);
    limits(&gpu);
    use_each(&gpu);
    budget(&gpu);
    gpu_close(&gpu);
    return 0;
}
