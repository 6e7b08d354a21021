/* Memory that two processes share, by opaque descriptors and dma-bufs: each end writes, the other reads. */
#include "vk.h"

#define SIZE (300 * KIB + 64)

static struct gpu gpu;
static struct peer peer;

struct kind {
    const char *name;
    VkExternalMemoryHandleTypeFlagBits type;
    VkMemoryPropertyFlags flags;
};

static bool supported(const struct kind *kind)
{
    VkExternalBufferProperties offers = { .sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES };
    const VkExternalMemoryFeatureFlags both =
        VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT;

    vkGetPhysicalDeviceExternalBufferProperties(
        gpu.physical,
        &(VkPhysicalDeviceExternalBufferInfo){
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO,
            .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
            .handleType = kind->type },
        &offers);
    return (offers.externalMemoryProperties.externalMemoryFeatures & both) == both;
}

/* Through the GPU, and through the mapping if there is one. */
static void write_pattern(const struct buffer *buffer, struct buffer *staging, uint32_t seed)
{
    pattern(staging->bytes, SIZE, seed, 0);
    copy_now(&gpu, staging->handle, 0, buffer->handle, 0, SIZE);
}

static void read_pattern(const struct buffer *buffer, struct buffer *staging, uint32_t seed, const char *what)
{
    uint8_t expected[SIZE];

    pattern(expected, SIZE, seed, 0);
    copy_now(&gpu, buffer->handle, 0, staging->handle, 0, SIZE);
    SAME(staging->bytes, expected, SIZE, "%s", what);
    if (buffer->bytes)
        SAME(buffer->bytes, expected, SIZE, "%s, by its mapping", what);
}

static void export_and_share(const struct kind *kind, struct buffer *staging)
{
    struct buffer buffer = buffer_exported(&gpu, SIZE, kind->flags, kind->type);

    write_pattern(&buffer, staging, 1);
    peer_send(&peer, buffer_fd(&gpu, &buffer, kind->type));
    peer_meet(&peer, "imported, read and written");
    read_pattern(&buffer, staging, 2, "what the importer wrote");
    write_pattern(&buffer, staging, 3);
    buffer_free(&gpu, &buffer);
    peer_meet(&peer, "written again and freed by the exporter");
    peer_meet(&peer, "read to the end");
}

static void import_and_share(const struct kind *kind, struct buffer *staging)
{
    struct buffer buffer = buffer_imported(&gpu, SIZE, kind->flags, kind->type, peer_receive(&peer));

    read_pattern(&buffer, staging, 1, "what the exporter wrote");
    write_pattern(&buffer, staging, 2);
    peer_meet(&peer, "imported, read and written");
    peer_meet(&peer, "written again and freed by the exporter");
    read_pattern(&buffer, staging, 3, "what the exporter wrote before it freed its memory");
    buffer_free(&gpu, &buffer);
    peer_meet(&peer, "read to the end");
}

int main(int count, char **arguments)
{
    static const struct kind kinds[] = {
        { "opaque descriptor", VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT, LOCAL },
        { "opaque descriptor, mapped", VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT, HOST },
        { "dma-buf", VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT, LOCAL },
        { "dma-buf, mapped", VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT, HOST },
    };
    const char *missing = NULL;
    struct buffer staging;

    (void)count;
    peer = peer_start(arguments);
    gpu_open(&gpu, &(struct wish){ .extensions = { VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                                   VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME } });
    staging = buffer_new(&gpu, SIZE, HOST);
    for (size_t i = 0; i < LEN(kinds); i++)
        for (int turned = 0; turned < 2; turned++) {
            if (!supported(&kinds[i])) {
                missing = kinds[i].name;
                continue;
            }
            if (turned ? peer.child == 0 : peer.child != 0)
                export_and_share(&kinds[i], &staging);
            else
                import_and_share(&kinds[i], &staging);
            if (peer.child)
                verified("%s, %s", kinds[i].name, turned ? "from the child" : "to the child");
        }
    buffer_free(&gpu, &staging);
    gpu_close(&gpu);
    if (missing && !peer.child)
        lacks("export and import of buffers by %s", missing);
    peer_end(&peer);
    return 0;
}
