/* Verdicts and the device: the first parts of vk.h, in its order. */
#include "vk.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- verdicts ---- */

void fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "%s:%d: ", file, line);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    _Exit(1); /* no atexit handler of the driver: it may wait for what hangs */
}

void lacks(const char *format, ...)
{
    va_list arguments;

    printf("lacks ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    exit(77);
}

void verified(const char *format, ...)
{
    va_list arguments;

    printf("ok ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

const char *result_name(VkResult result)
{
    static char number[32];

    switch (result) {
#define NAME(code)                                                                                           \
    case code: return #code
        NAME(VK_SUCCESS);
        NAME(VK_NOT_READY);
        NAME(VK_TIMEOUT);
        NAME(VK_EVENT_SET);
        NAME(VK_EVENT_RESET);
        NAME(VK_INCOMPLETE);
        NAME(VK_ERROR_OUT_OF_HOST_MEMORY);
        NAME(VK_ERROR_OUT_OF_DEVICE_MEMORY);
        NAME(VK_ERROR_INITIALIZATION_FAILED);
        NAME(VK_ERROR_DEVICE_LOST);
        NAME(VK_ERROR_MEMORY_MAP_FAILED);
        NAME(VK_ERROR_EXTENSION_NOT_PRESENT);
        NAME(VK_ERROR_FEATURE_NOT_PRESENT);
        NAME(VK_ERROR_INCOMPATIBLE_DRIVER);
        NAME(VK_ERROR_TOO_MANY_OBJECTS);
        NAME(VK_ERROR_FORMAT_NOT_SUPPORTED);
        NAME(VK_ERROR_INVALID_EXTERNAL_HANDLE);
        NAME(VK_ERROR_UNKNOWN);
#undef NAME
    default: snprintf(number, sizeof number, "VkResult %d", result); return number;
    }
}

void check_equal(const char *file, int line, const char *what, uint64_t got, uint64_t expected)
{
    if (got != expected)
        fail(file, line, "%s: expected %llu (%#llx), got %llu (%#llx)", what, (unsigned long long)expected,
             (unsigned long long)expected, (unsigned long long)got, (unsigned long long)got);
}

void check_result(const char *file, int line, const char *call, VkResult got, VkResult expected)
{
    if (got != expected)
        /* result_name has one buffer for numbers: only one of the two can be without a name. */
        fail(file, line, "%s: expected %s, got %s", call, result_name(expected), result_name(got));
}

static _Noreturn void fail_at(const char *file, int line, size_t at, size_t size, uint8_t expected,
                              uint8_t got, const char *format, va_list arguments)
{
    char what[256];

    vsnprintf(what, sizeof what, format, arguments);
    fail(file, line, "%s: byte %zu (%#zx) of %zu: expected %#04x, got %#04x", what, at, at, size, expected,
         got);
}

void check_same(const char *file, int line, const void *got, const void *expected, size_t size,
                const char *format, ...)
{
    const uint8_t *is = got, *should_be = expected;
    va_list arguments;

    if (memcmp(is, should_be, size) == 0)
        return;
    va_start(arguments, format);
    for (size_t at = 0; at < size; at++)
        if (is[at] != should_be[at])
            fail_at(file, line, at, size, should_be[at], is[at], format, arguments);
    fail(file, line, "the bytes changed while they were compared");
}

void check_zero(const char *file, int line, const void *got, size_t size, const char *format, ...)
{
    const uint8_t *is = got;
    va_list arguments;

    va_start(arguments, format);
    for (size_t at = 0; at < size; at++)
        if (is[at])
            fail_at(file, line, at, size, 0, is[at], format, arguments);
    va_end(arguments);
}

void pattern(void *bytes, size_t size, uint32_t seed, size_t at)
{
    uint8_t *to = bytes;

    for (size_t i = 0; i < size; i++, at++) {
        uint64_t word = (at >> 2) + ((uint64_t)seed << 32);

        word = (word ^ word >> 31) * 0x9e3779b97f4a7c15ull;
        word = (word ^ word >> 29) * 0xbf58476d1ce4e5b9ull;
        to[i] = (uint8_t)(word >> (32 + 8 * (at & 3)));
    }
}

void *bytes_new(size_t size)
{
    void *bytes = calloc(1, size ? size : 1);

    CHECK(bytes, "no memory for %zu bytes", size);
    return bytes;
}

/* ---- the device ---- */

static const struct {
    size_t offset;
    const char *name;
} feature_names[] = {
#define FEATURE(name) { offsetof(VkPhysicalDeviceFeatures, name), #name }
    FEATURE(sparseBinding),           FEATURE(sparseResidencyBuffer),   FEATURE(sparseResidencyImage2D),
    FEATURE(sparseResidencyImage3D),  FEATURE(sparseResidencyAliased),  FEATURE(sparseResidency2Samples),
    FEATURE(sparseResidency4Samples), FEATURE(sparseResidency8Samples), FEATURE(textureCompressionBC),
    FEATURE(imageCubeArray),          FEATURE(pipelineStatisticsQuery), FEATURE(robustBufferAccess),
#undef FEATURE
};

static void need_features(VkPhysicalDevice physical, const VkPhysicalDeviceFeatures *wished)
{
    VkPhysicalDeviceFeatures offered;
    const char *want = (const char *)wished, *have = (const char *)&offered;

    vkGetPhysicalDeviceFeatures(physical, &offered);
    for (size_t offset = 0; offset < sizeof offered; offset += sizeof(VkBool32)) {
        if (!*(const VkBool32 *)(want + offset) || *(const VkBool32 *)(have + offset))
            continue;
        for (size_t i = 0; i < LEN(feature_names); i++)
            if (feature_names[i].offset == offset)
                lacks("the feature %s", feature_names[i].name);
        lacks("the feature at offset %zu of VkPhysicalDeviceFeatures", offset);
    }
}

bool gpu_has_extension(const struct gpu *gpu, const char *name)
{
    uint32_t count = 0;
    VkExtensionProperties *offered;
    bool found = false;

    VK(vkEnumerateDeviceExtensionProperties(gpu->physical, NULL, &count, NULL));
    offered = bytes_new(count * sizeof *offered);
    VK(vkEnumerateDeviceExtensionProperties(gpu->physical, NULL, &count, offered));
    for (uint32_t i = 0; i < count; i++)
        found |= strcmp(offered[i].extensionName, name) == 0;
    free(offered);
    return found;
}

static void open_device(struct gpu *gpu, const struct wish *wish)
{
    static const float priorities[16] = { 1 };
    VkDeviceQueueCreateInfo queues[8];
    VkQueueFamilyProperties families[8];
    VkPhysicalDeviceVulkan12Features offered12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
    };
    VkPhysicalDeviceVulkan13Features offered13 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES,
        .pNext = &offered12,
    };
    VkPhysicalDeviceFeatures2 offered = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &offered13 };
    VkPhysicalDeviceVulkan12Features wished12 = { .sType = offered12.sType,
                                                  .timelineSemaphore = wish->timeline };
    VkPhysicalDeviceVulkan13Features wished13 = { .sType = offered13.sType,
                                                  .pNext = &wished12,
                                                  .synchronization2 = wish->synchronization2 };
    uint32_t family_count = LEN(families), extension_count = 0;

    need_features(gpu->physical, &wish->features);
    vkGetPhysicalDeviceFeatures2(gpu->physical, &offered);
    if (wish->timeline && !offered12.timelineSemaphore)
        lacks("the feature timelineSemaphore");
    if (wish->synchronization2 && !offered13.synchronization2)
        lacks("the feature synchronization2");
    for (; extension_count < LEN(wish->extensions) && wish->extensions[extension_count]; extension_count++)
        if (!gpu_has_extension(gpu, wish->extensions[extension_count]))
            lacks("the extension %s", wish->extensions[extension_count]);

    vkGetPhysicalDeviceQueueFamilyProperties(gpu->physical, &family_count, families);
    for (uint32_t i = 0; i < family_count; i++) {
        if (families[i].queueCount > LEN(priorities))
            families[i].queueCount = LEN(priorities);
        queues[i] = (VkDeviceQueueCreateInfo){ .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                               .queueFamilyIndex = i,
                                               .queueCount = families[i].queueCount,
                                               .pQueuePriorities = priorities };
    }
    VK(vkCreateDevice(gpu->physical,
                      &(VkDeviceCreateInfo){ .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                             .pNext = &wished13,
                                             .queueCreateInfoCount = family_count,
                                             .pQueueCreateInfos = queues,
                                             .enabledExtensionCount = extension_count,
                                             .ppEnabledExtensionNames = wish->extensions,
                                             .pEnabledFeatures = &wish->features },
                      NULL, &gpu->device));
    for (uint32_t i = 0; i < family_count; i++)
        for (uint32_t j = 0; j < families[i].queueCount && gpu->queue_count < LEN(gpu->queues); j++) {
            struct queue *queue = &gpu->queues[gpu->queue_count++];

            *queue = (struct queue){ .family = i, .flags = families[i].queueFlags };
            vkGetDeviceQueue(gpu->device, i, j, &queue->handle);
            VK(vkCreateCommandPool(
                gpu->device,
                &(VkCommandPoolCreateInfo){ .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                            .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                            .queueFamilyIndex = i },
                NULL, &queue->pool));
        }
}

/* What a queue can: graphics and compute imply copies, though the flag need not say so. */
static struct queue *first_queue(struct gpu *gpu, VkQueueFlags any_of)
{
    for (uint32_t i = 0; i < gpu->queue_count; i++)
        if (gpu->queues[i].flags & any_of)
            return &gpu->queues[i];
    return NULL;
}

void gpu_open(struct gpu *gpu, const struct wish *wish)
{
    static const struct wish nothing;
    uint32_t count = 1;
    VkResult found;

    memset(gpu, 0, sizeof *gpu);
    VK(vkCreateInstance(
        &(VkInstanceCreateInfo){ .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                 .pApplicationInfo =
                                     &(VkApplicationInfo){ .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                                           .apiVersion = VK_API_VERSION_1_3 } },
        NULL, &gpu->instance));
    found = vkEnumeratePhysicalDevices(gpu->instance, &count, &gpu->physical);
    CHECK((found == VK_SUCCESS || found == VK_INCOMPLETE) && count == 1, "no Vulkan device: %s",
          result_name(found));
    vkGetPhysicalDeviceProperties(gpu->physical, &gpu->properties);
    vkGetPhysicalDeviceMemoryProperties(gpu->physical, &gpu->memory);
    open_device(gpu, wish ? wish : &nothing);
    gpu->queue = first_queue(gpu, VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT | VK_QUEUE_TRANSFER_BIT);
    gpu->sparse = first_queue(gpu, VK_QUEUE_SPARSE_BINDING_BIT);
    CHECK(gpu->queue, "no queue that copies among %u", gpu->queue_count);
}

void gpu_close(struct gpu *gpu)
{
    for (uint32_t i = 0; i < gpu->queue_count; i++)
        vkDestroyCommandPool(gpu->device, gpu->queues[i].pool, NULL);
    vkDestroyDevice(gpu->device, NULL);
    vkDestroyInstance(gpu->instance, NULL);
}

PFN_vkVoidFunction gpu_function(const struct gpu *gpu, const char *name)
{
    PFN_vkVoidFunction function = vkGetDeviceProcAddr(gpu->device, name);

    CHECK(function, "no %s", name);
    return function;
}
