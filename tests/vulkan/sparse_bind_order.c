/* Binds and submissions that follow each other by semaphores alone: bind, write, rebind, write, bind back,
 * read. All is queued before the first may begin. */
#include "vk.h"

#include <string.h>

static struct gpu gpu;

enum { STEPS = 6 }; /* after the one that holds them all */

struct scene {
    struct buffer sparse, from[2], back[2];
    VkDeviceMemory memories[2];
    VkDeviceSize size;
};

static struct scene scene_new(void)
{
    struct scene scene = { .sparse = buffer_sparse(&gpu, MIB, VK_BUFFER_CREATE_SPARSE_BINDING_BIT) };
    VkMemoryRequirements needs = buffer_needs(&gpu, scene.sparse.handle);

    scene.size = needs.size;
    for (uint32_t i = 0; i < 2; i++) {
        scene.memories[i] = memory_new(&gpu, needs.size, needs.memoryTypeBits, LOCAL);
        scene.from[i] = buffer_new(&gpu, MIB, HOST);
        scene.back[i] = buffer_new(&gpu, MIB, HOST);
        pattern(scene.from[i].bytes, MIB, 10 + i, 0);
        memset(scene.back[i].bytes, 0, MIB);
    }
    return scene;
}

static void scene_free(struct scene *scene)
{
    for (uint32_t i = 0; i < 2; i++) {
        buffer_free(&gpu, &scene->from[i]);
        buffer_free(&gpu, &scene->back[i]);
    }
    buffer_free(&gpu, &scene->sparse);
    for (uint32_t i = 0; i < 2; i++)
        vkFreeMemory(gpu.device, scene->memories[i], NULL);
}

static void bind_to(const struct scene *scene, VkDeviceMemory memory, const struct job *job)
{
    const VkSparseMemoryBind bind = { .size = scene->size, .memory = memory };
    const VkSparseBufferMemoryBindInfo binds = { scene->sparse.handle, 1, &bind };

    VK(queue_bind(gpu.sparse, job, &(VkBindSparseInfo){ .bufferBindCount = 1, .pBufferBinds = &binds }));
}

static VkCommandBuffer copies(const struct queue *queue, const struct buffer *from,
                              const struct buffer *through, const struct buffer *to)
{
    VkCommandBuffer commands = commands_for(&gpu, queue);

    if (from) {
        vkCmdCopyBuffer(commands, from->handle, through->handle, 1, &(VkBufferCopy){ 0, 0, MIB });
        commands_barrier(commands);
    }
    if (to) {
        vkCmdCopyBuffer(commands, through->handle, to->handle, 1, &(VkBufferCopy){ 0, 0, MIB });
        commands_barrier(commands);
    }
    return commands;
}

/* The steps wait for each other by binary semaphores, or by one timeline that waits before its signals. */
static void run(bool timeline)
{
    struct scene scene = scene_new();
    VkSemaphore counter = timeline_new(&gpu, 0), binary[STEPS + 1];
    struct job steps[STEPS + 1] = { 0 };
    VkEvent go = event_new(&gpu); /* holds the first step */
    VkFence fence = fence_new(&gpu, false);
    const struct queue *queue = &gpu.queues[gpu.queue_count - 1];

    for (uint64_t i = 0; i <= STEPS; i++) {
        binary[i] = semaphore_new(&gpu);
        steps[i].signals[0] = timeline ? (struct point){ counter, i + 1 } : (struct point){ binary[i], 0 };
        if (i)
            steps[i].waits[0] = steps[i - 1].signals[0];
    }
    steps[STEPS].fence = fence;
    steps[0].commands = commands_held(&gpu, queue, go);
    steps[2].commands = copies(queue, &scene.from[0], &scene.sparse, NULL);
    steps[4].commands = copies(queue, &scene.from[1], &scene.sparse, &scene.back[1]);
    steps[6].commands = copies(queue, NULL, &scene.sparse, &scene.back[0]);
    for (uint32_t i = 0; i <= STEPS; i++)
        if (i % 2)
            bind_to(&scene, scene.memories[i == 3], &steps[i]);
        else
            VK(queue_submit(queue, &steps[i]));

    RESULT(vkWaitForFences(gpu.device, 1, &fence, true, SECOND / 100), VK_TIMEOUT);
    VK(vkSetEvent(gpu.device, go));
    VK(vkWaitForFences(gpu.device, 1, &fence, true, PATIENCE));
    SAME(scene.back[1].bytes, scene.from[1].bytes, MIB, "what was written after the rebind");
    SAME(scene.back[0].bytes, scene.from[0].bytes, MIB, "what the first memory kept");
    VK(vkDeviceWaitIdle(gpu.device));
    verified("bind, write, rebind, write, bind back, read, by %s",
             timeline ? "a timeline" : "binary semaphores");

    vkDestroyFence(gpu.device, fence, NULL);
    vkDestroyEvent(gpu.device, go, NULL);
    for (uint32_t i = 0; i <= STEPS; i++)
        vkDestroySemaphore(gpu.device, binary[i], NULL);
    vkDestroySemaphore(gpu.device, counter, NULL);
    scene_free(&scene);
}

/* By fences: the host waits between the steps, and the fences are used again. */
static void with_fences(void)
{
    struct scene scene = scene_new();
    VkFence fence = fence_new(&gpu, false);

    for (uint32_t round = 0; round < 6; round++) {
        uint32_t i = round % 2;

        bind_to(&scene, scene.memories[i], &(struct job){ .fence = fence });
        VK(vkWaitForFences(gpu.device, 1, &fence, true, PATIENCE));
        VK(vkResetFences(gpu.device, 1, &fence));
        VK(queue_submit(gpu.queue,
                        &(struct job){ .commands = copies(gpu.queue, round < 2 ? &scene.from[i] : NULL,
                                                          &scene.sparse, &scene.back[i]),
                                       .fence = fence }));
        VK(vkWaitForFences(gpu.device, 1, &fence, true, PATIENCE));
        VK(vkResetFences(gpu.device, 1, &fence));
        SAME(scene.back[i].bytes, scene.from[i].bytes, MIB, "the bytes of memory %u in round %u", i, round);
        memset(scene.back[i].bytes, 0, MIB);
    }
    verified("two memories in turns, by fences");
    vkDestroyFence(gpu.device, fence, NULL);
    scene_free(&scene);
}

int main(void)
{
    gpu_open(&gpu, &(struct wish){
                       .features = { .sparseBinding = true }, .timeline = true, .synchronization2 = true });
    if (!gpu.sparse)
        lacks("a queue with VK_QUEUE_SPARSE_BINDING_BIT");
    run(true);
    run(false);
    with_fences();
    gpu_close(&gpu);
    return 0;
}
