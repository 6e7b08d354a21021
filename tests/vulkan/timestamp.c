/* Timestamps: not ready before, available after, never falling, and on the clock that calibration tells. */
#include "vk.h"

#include <time.h>

enum { STAMPS = 8 };

static struct gpu gpu;
static VkQueryPool pool;

static void reset(void)
{
    VkCommandBuffer commands = commands_begin(&gpu);

    vkCmdResetQueryPool(commands, pool, 0, STAMPS);
    commands_run(&gpu, commands);
}

/* Stamps [first, last), a copy before each but the first, in one submission. */
static void stamp(const struct buffer *from, const struct buffer *to, uint32_t first, uint32_t last)
{
    VkCommandBuffer commands = commands_begin(&gpu);

    for (uint32_t i = first; i < last; i++) {
        if (i > first)
            vkCmdCopyBuffer(commands, from->handle, to->handle, 1, &(VkBufferCopy){ 0, 0, from->size });
        vkCmdWriteTimestamp(
            commands, i > first ? VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT : VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT,
            pool, i);
    }
    commands_run(&gpu, commands);
}

static VkResult results(uint32_t first, uint32_t count, void *bytes, VkDeviceSize stride,
                        VkQueryResultFlags flags)
{
    return vkGetQueryPoolResults(gpu.device, pool, first, count, count * stride, bytes, stride, flags);
}

static void availability(const struct buffer *from, const struct buffer *to)
{
    struct {
        uint64_t time, available;
    } stamps[STAMPS];
    const VkQueryResultFlags flags = VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WITH_AVAILABILITY_BIT;

    reset();
    RESULT(results(0, STAMPS, stamps, sizeof stamps[0], flags), VK_NOT_READY);
    for (uint32_t i = 0; i < STAMPS; i++)
        EQUAL(stamps[i].available, 0);
    stamp(from, to, 0, STAMPS / 2);
    RESULT(results(0, STAMPS, stamps, sizeof stamps[0], flags), VK_NOT_READY);
    for (uint32_t i = 0; i < STAMPS; i++)
        EQUAL(stamps[i].available, i < STAMPS / 2);
    stamp(from, to, STAMPS / 2, STAMPS);
    VK(results(0, STAMPS, stamps, sizeof stamps[0], flags));
    for (uint32_t i = 0; i < STAMPS; i++)
        EQUAL(stamps[i].available, 1);
    reset();
    RESULT(results(0, STAMPS, stamps, sizeof stamps[0], flags), VK_NOT_READY);
    verified("not ready, half of them, available, reset");
}

static void order(const struct buffer *from, const struct buffer *to)
{
    uint64_t times[STAMPS];
    uint32_t low[STAMPS];

    reset();
    stamp(from, to, 0, STAMPS / 2);
    stamp(from, to, STAMPS / 2, STAMPS);
    VK(results(0, STAMPS, times, sizeof times[0], VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT));
    CHECK(times[0] > 0, "the first timestamp is 0");
    for (uint32_t i = 1; i < STAMPS; i++)
        CHECK(times[i] >= times[i - 1], "timestamp %u is %llu, the one before %llu", i,
              (unsigned long long)times[i], (unsigned long long)times[i - 1]);
    CHECK(times[STAMPS - 1] > times[0], "no time went by in %u copies", STAMPS - 2);
    verified("%d timestamps of two submissions never fall", STAMPS);

    VK(results(0, STAMPS, low, sizeof low[0], 0));
    for (uint32_t i = 0; i < STAMPS; i++)
        EQUAL(low[i], (uint32_t)times[i]);
    VK(results(3, 1, times, sizeof times[0], VK_QUERY_RESULT_64_BIT));
    EQUAL((uint32_t)times[0], low[3]);
    verified("results of 32 bits, and of one query");
}

/* Device and monotonic time at one moment. */
static void calibrated(uint64_t times[2])
{
    static const VkCalibratedTimestampInfoEXT infos[2] = {
        { VK_STRUCTURE_TYPE_CALIBRATED_TIMESTAMP_INFO_EXT, NULL, VK_TIME_DOMAIN_DEVICE_EXT },
        { VK_STRUCTURE_TYPE_CALIBRATED_TIMESTAMP_INFO_EXT, NULL, VK_TIME_DOMAIN_CLOCK_MONOTONIC_EXT },
    };
    PFN_vkGetCalibratedTimestampsEXT get =
        (PFN_vkGetCalibratedTimestampsEXT)gpu_function(&gpu, "vkGetCalibratedTimestampsEXT");
    uint64_t deviation;

    VK(get(gpu.device, 2, infos, times, &deviation));
}

static void calibration(const struct buffer *from, const struct buffer *to)
{
    uint64_t before[2], after[2], stamps[STAMPS];
    struct timespec host;

    clock_gettime(CLOCK_MONOTONIC, &host);
    reset();
    calibrated(before);
    stamp(from, to, 0, STAMPS);
    calibrated(after);
    VK(results(0, STAMPS, stamps, sizeof stamps[0], VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT));
    CHECK(before[0] <= stamps[0] && stamps[STAMPS - 1] <= after[0],
          "timestamps %llu to %llu are not between the device's times %llu and %llu",
          (unsigned long long)stamps[0], (unsigned long long)stamps[STAMPS - 1],
          (unsigned long long)before[0], (unsigned long long)after[0]);
    CHECK((uint64_t)host.tv_sec * SECOND + (uint64_t)host.tv_nsec <= before[1] && before[1] < after[1],
          "the monotonic clock gave %llu and %llu", (unsigned long long)before[1],
          (unsigned long long)after[1]);
    verified("timestamps are between two calibrated times of the device");
}

int main(void)
{
    struct buffer from, to;

    gpu_open(&gpu, &(struct wish){ .extensions = { VK_EXT_CALIBRATED_TIMESTAMPS_EXTENSION_NAME } });
    if (!gpu.properties.limits.timestampComputeAndGraphics)
        lacks("timestampComputeAndGraphics");
    CHECK(gpu.properties.limits.timestampPeriod > 0, "timestampPeriod is %f",
          gpu.properties.limits.timestampPeriod);
    from = buffer_new(&gpu, MIB, LOCAL);
    to = buffer_new(&gpu, MIB, LOCAL);
    VK(vkCreateQueryPool(gpu.device,
                         &(VkQueryPoolCreateInfo){ .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                                   .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                                   .queryCount = STAMPS },
                         NULL, &pool));
    availability(&from, &to);
    order(&from, &to);
    calibration(&from, &to);
    vkDestroyQueryPool(gpu.device, pool, NULL);
    buffer_free(&gpu, &from);
    buffer_free(&gpu, &to);
    gpu_close(&gpu);
    return 0;
}
