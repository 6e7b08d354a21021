/* Fences that two processes share: an opaque one, and sync files that the other end polls itself. */
#include "vk.h"

#include <poll.h>
#include <unistd.h>

static const VkExternalFenceHandleTypeFlagBits OPAQUE = VK_EXTERNAL_FENCE_HANDLE_TYPE_OPAQUE_FD_BIT,
                                               SYNC_FILE = VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT;

static struct gpu gpu;
static struct peer peer;

static VkFence fence_exported(VkExternalFenceHandleTypeFlagBits type)
{
    VkFence fence;

    VK(vkCreateFence(
        gpu.device,
        &(VkFenceCreateInfo){
            .sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO,
            .pNext = &(VkExportFenceCreateInfo){ .sType = VK_STRUCTURE_TYPE_EXPORT_FENCE_CREATE_INFO,
                                                 .handleTypes = type } },
        NULL, &fence));
    return fence;
}

static int fence_fd(VkFence fence, VkExternalFenceHandleTypeFlagBits type)
{
    PFN_vkGetFenceFdKHR get = (PFN_vkGetFenceFdKHR)gpu_function(&gpu, "vkGetFenceFdKHR");
    int fd = -1;

    VK(get(gpu.device,
           &(VkFenceGetFdInfoKHR){
               .sType = VK_STRUCTURE_TYPE_FENCE_GET_FD_INFO_KHR, .fence = fence, .handleType = type },
           &fd));
    CHECK(fd >= 0, "vkGetFenceFdKHR gave the descriptor %d for a job that is not done", fd);
    return fd;
}

static void fence_import(VkFence fence, VkExternalFenceHandleTypeFlagBits type, int fd)
{
    PFN_vkImportFenceFdKHR import = (PFN_vkImportFenceFdKHR)gpu_function(&gpu, "vkImportFenceFdKHR");

    VK(import(gpu.device,
              &(VkImportFenceFdInfoKHR){ .sType = VK_STRUCTURE_TYPE_IMPORT_FENCE_FD_INFO_KHR,
                                         .fence = fence,
                                         .flags = type == SYNC_FILE ? VK_FENCE_IMPORT_TEMPORARY_BIT : 0,
                                         .handleType = type,
                                         .fd = fd }));
}

static void submit_held(VkEvent go, VkFence fence)
{
    VK(vkResetEvent(gpu.device, go));
    VK(queue_submit(gpu.queue,
                    &(struct job){ .commands = commands_held(&gpu, gpu.queue, go), .fence = fence }));
}

static void signal_fences(void)
{
    VkFence opaque = fence_exported(OPAQUE), file = fence_exported(SYNC_FILE);
    VkEvent go = event_new(&gpu);

    peer_send(&peer, fence_fd(opaque, OPAQUE));
    for (int round = 0; round < 3; round++) {
        submit_held(go, opaque);
        peer_meet(&peer, "the opaque fence's job is submitted");
        peer_meet(&peer, "the opaque fence is not signalled");
        VK(vkSetEvent(gpu.device, go));
        peer_meet(&peer, "the opaque fence is signalled");
        VK(vkWaitForFences(gpu.device, 1, &opaque, true, PATIENCE));
        VK(vkResetFences(gpu.device, 1, &opaque)); /* for both ends */
        peer_meet(&peer, "the opaque fence is reset");
    }
    for (int round = 0; round < 3; round++) {
        submit_held(go, file);
        peer_send(&peer, fence_fd(file, SYNC_FILE)); /* resets the fence: its payload went away */
        RESULT(vkGetFenceStatus(gpu.device, file), VK_NOT_READY);
        peer_meet(&peer, "the sync file is not signalled");
        VK(vkSetEvent(gpu.device, go));
        peer_meet(&peer, "the sync file is signalled");
        RESULT(vkGetFenceStatus(gpu.device, file), VK_NOT_READY);
        VK(vkQueueWaitIdle(gpu.queue->handle));
    }
    vkDestroyEvent(gpu.device, go, NULL);
    vkDestroyFence(gpu.device, opaque, NULL);
    vkDestroyFence(gpu.device, file, NULL);
}

static void wait_for_fences(void)
{
    VkFence fence = fence_new(&gpu, false);

    fence_import(fence, OPAQUE, peer_receive(&peer));
    for (int round = 0; round < 3; round++) {
        peer_meet(&peer, "the opaque fence's job is submitted");
        RESULT(vkWaitForFences(gpu.device, 1, &fence, true, SECOND / 100), VK_TIMEOUT);
        peer_meet(&peer, "the opaque fence is not signalled");
        VK(vkWaitForFences(gpu.device, 1, &fence, true, PATIENCE));
        peer_meet(&peer, "the opaque fence is signalled");
        peer_meet(&peer, "the opaque fence is reset");
        RESULT(vkGetFenceStatus(gpu.device, fence), VK_NOT_READY);
    }
    for (int round = 0; round < 3; round++) {
        struct pollfd file = { .fd = peer_receive(&peer), .events = POLLIN };

        EQUAL(poll(&file, 1, 0), 0);
        fence_import(fence, SYNC_FILE, dup(file.fd));
        RESULT(vkGetFenceStatus(gpu.device, fence), VK_NOT_READY);
        peer_meet(&peer, "the sync file is not signalled");
        EQUAL(poll(&file, 1, PATIENCE / (SECOND / 1000)), 1);
        EQUAL(file.revents, POLLIN);
        VK(vkWaitForFences(gpu.device, 1, &fence, true, PATIENCE));
        VK(vkResetFences(gpu.device, 1, &fence)); /* the payload of its own is back */
        RESULT(vkGetFenceStatus(gpu.device, fence), VK_NOT_READY);
        close(file.fd);
        peer_meet(&peer, "the sync file is signalled");
    }
    vkDestroyFence(gpu.device, fence, NULL);
}

int main(int count, char **arguments)
{
    (void)count;
    peer = peer_start(arguments);
    gpu_open(&gpu, &(struct wish){ .synchronization2 = true,
                                   .extensions = { VK_KHR_EXTERNAL_FENCE_FD_EXTENSION_NAME } });
    for (int turned = 0; turned < 2; turned++) {
        if (turned ? !peer.child : peer.child)
            signal_fences();
        else
            wait_for_fences();
        if (peer.child)
            verified("an opaque fence and sync files, signalled by the %s", turned ? "child" : "parent");
    }
    gpu_close(&gpu);
    peer_end(&peer);
    return 0;
}
