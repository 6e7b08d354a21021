/* Semaphores that two processes share: opaque ones, sync files, and a timeline; with memory that they guard.
 */
#include "vk.h"

#include <string.h>

#define SIZE (64 * KIB)

static const VkExternalMemoryHandleTypeFlagBits MEMORY = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT;
static const VkExternalSemaphoreHandleTypeFlagBits OPAQUE = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT,
                                                   SYNC_FILE = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT;

static struct gpu gpu;
static struct peer peer;
static struct buffer shared, mine;

static VkCommandBuffer copy(VkCommandBuffer commands, const struct buffer *from, const struct buffer *to)
{
    vkCmdCopyBuffer(commands, from->handle, to->handle, 1, &(VkBufferCopy){ 0, 0, SIZE });
    commands_barrier(commands);
    return commands;
}

/* A job that writes a pattern into the shared buffer when the host says so, and the points after it. */
static void submit_writer(uint32_t seed, VkEvent go, struct point signal)
{
    pattern(mine.bytes, SIZE, seed, 0);
    VK(queue_submit(gpu.queue,
                    &(struct job){ .commands = copy(commands_held(&gpu, gpu.queue, go), &mine, &shared),
                                   .signals = { signal } }));
}

/* A job that reads the shared buffer after a point. */
static void submit_reader(struct point wait, struct point signal, VkFence fence)
{
    memset(mine.bytes, 0, SIZE);
    VK(queue_submit(gpu.queue, &(struct job){ .commands = copy(commands_begin(&gpu), &shared, &mine),
                                              .waits = { wait },
                                              .signals = { signal },
                                              .fence = fence }));
}

static void check_read(uint32_t seed)
{
    uint8_t expected[SIZE];

    pattern(expected, SIZE, seed, 0);
    SAME(mine.bytes, expected, SIZE, "what the other process's job wrote");
}

/* ---- binary: one end signals, the other waits, and nothing is done before the first has begun ---- */

static void signal_binary(VkExternalSemaphoreHandleTypeFlagBits type, uint32_t seed)
{
    VkSemaphore semaphore = semaphore_exported(&gpu, VK_SEMAPHORE_TYPE_BINARY, type);
    VkEvent go = event_new(&gpu);

    if (type == OPAQUE) /* the object itself: every payload that it will have */
        peer_send(&peer, semaphore_fd(&gpu, semaphore, type));
    for (uint32_t round = 0; round < 3; round++) {
        VK(vkResetEvent(gpu.device, go));
        submit_writer(seed + round, go, (struct point){ semaphore, 0 });
        if (type == SYNC_FILE) /* the payload that it has now */
            peer_send(&peer, semaphore_fd(&gpu, semaphore, type));
        peer_meet(&peer, "the writer is submitted");
        peer_meet(&peer, "the reader is submitted");
        VK(vkSetEvent(gpu.device, go));
        peer_meet(&peer, "read");
        VK(vkQueueWaitIdle(gpu.queue->handle));
    }
    vkDestroyEvent(gpu.device, go, NULL);
    vkDestroySemaphore(gpu.device, semaphore, NULL);
}

static void wait_binary(VkExternalSemaphoreHandleTypeFlagBits type, uint32_t seed)
{
    VkSemaphore semaphore = semaphore_new(&gpu);
    VkFence fence = fence_new(&gpu, false);

    if (type == OPAQUE)
        semaphore_import(&gpu, semaphore, type, peer_receive(&peer));
    for (uint32_t round = 0; round < 3; round++) {
        if (type == SYNC_FILE)
            semaphore_import(&gpu, semaphore, type, peer_receive(&peer));
        peer_meet(&peer, "the writer is submitted");
        submit_reader((struct point){ semaphore, 0 }, (struct point){ 0 }, fence);
        RESULT(vkWaitForFences(gpu.device, 1, &fence, true, SECOND / 100), VK_TIMEOUT);
        peer_meet(&peer, "the reader is submitted");
        VK(vkWaitForFences(gpu.device, 1, &fence, true, PATIENCE));
        VK(vkResetFences(gpu.device, 1, &fence));
        check_read(seed + round);
        peer_meet(&peer, "read");
    }
    vkDestroyFence(gpu.device, fence, NULL);
    vkDestroySemaphore(gpu.device, semaphore, NULL);
}

/* ---- a timeline: odd values are one end's, even values the other's ---- */

enum { LAST = 8 };

static void take_turns(VkSemaphore timeline, uint64_t first)
{
    VkEvent go = event_new(&gpu);

    VK(vkSetEvent(gpu.device, go));
    for (uint64_t value = first; value <= LAST; value += 2) {
        /* Waits before the other end has signalled, or even submitted. */
        if (value > 1) {
            submit_reader((struct point){ timeline, value - 1 }, (struct point){ 0 }, VK_NULL_HANDLE);
            VK(vkQueueWaitIdle(gpu.queue->handle));
            check_read(50 + (uint32_t)value - 1);
        }
        EQUAL(timeline_value(&gpu, timeline), value - 1);
        RESULT(timeline_wait(&gpu, timeline, value, 0), VK_TIMEOUT);
        submit_writer(50 + (uint32_t)value, go, (struct point){ timeline, value });
        VK(timeline_wait(&gpu, timeline, value, PATIENCE));
        VK(vkQueueWaitIdle(gpu.queue->handle));
    }
    VK(timeline_wait(&gpu, timeline, LAST, PATIENCE));
    peer_meet(&peer, "the turns are over");
    /* The host of one end signals, that of the other waits. */
    if (peer.child)
        timeline_signal(&gpu, timeline, 1000);
    VK(timeline_wait(&gpu, timeline, 1000, PATIENCE));
    EQUAL(timeline_value(&gpu, timeline), 1000);
    vkDestroyEvent(gpu.device, go, NULL);
}

static void shared_timeline(void)
{
    VkSemaphore timeline;

    if (peer.child) {
        timeline = semaphore_exported(&gpu, VK_SEMAPHORE_TYPE_TIMELINE, OPAQUE);
        peer_send(&peer, semaphore_fd(&gpu, timeline, OPAQUE));
    } else {
        timeline = timeline_new(&gpu, 0);
        semaphore_import(&gpu, timeline, OPAQUE, peer_receive(&peer));
    }
    take_turns(timeline, peer.child ? 1 : 2);
    peer_meet(&peer, "the timeline is done with");
    vkDestroySemaphore(gpu.device, timeline, NULL);
}

int main(int count, char **arguments)
{
    (void)count;
    peer = peer_start(arguments);
    gpu_open(&gpu, &(struct wish){ .timeline = true,
                                   .synchronization2 = true,
                                   .extensions = { VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                                   VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME } });
    mine = buffer_new(&gpu, SIZE, HOST);
    if (peer.child) {
        shared = buffer_exported(&gpu, SIZE, LOCAL, MEMORY);
        peer_send(&peer, buffer_fd(&gpu, &shared, MEMORY));
    } else {
        shared = buffer_imported(&gpu, SIZE, LOCAL, MEMORY, peer_receive(&peer));
    }

    for (int turned = 0; turned < 2; turned++)
        for (int sync_file = 0; sync_file < 2; sync_file++) {
            VkExternalSemaphoreHandleTypeFlagBits type = sync_file ? SYNC_FILE : OPAQUE;
            uint32_t seed = 10 * (1 + (uint32_t)(2 * turned + sync_file));

            if (turned ? !peer.child : peer.child)
                signal_binary(type, seed);
            else
                wait_binary(type, seed);
            if (peer.child)
                verified("%s, signalled by the %s", sync_file ? "sync files" : "an opaque semaphore",
                         turned ? "child" : "parent");
        }
    shared_timeline();
    if (peer.child)
        verified("a timeline, %d turns of both, and a signal of the host", LAST);

    buffer_free(&gpu, &shared);
    buffer_free(&gpu, &mine);
    gpu_close(&gpu);
    peer_end(&peer);
    return 0;
}
