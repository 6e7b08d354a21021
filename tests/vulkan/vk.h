/*
 * What the Vulkan test programs share. A program opens a device with the features it needs, does one thing
 * and checks what came of it. It prints one line per thing verified and exits with 0; at the first thing
 * that is wrong it prints file:line, what was expected and what came, and exits with 1; where the driver
 * lacks a feature it names the feature and exits with 77.
 *
 * Buffers may always be copied from and to. Images are in the layout GENERAL once image_ready was recorded.
 */
#ifndef VK_H
#define VK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vulkan/vulkan.h>

#define LEN(array) (sizeof(array) / sizeof((array)[0]))
#define KIB ((VkDeviceSize)1 << 10)
#define MIB ((VkDeviceSize)1 << 20)
#define SECOND 1000000000ull   /* nanoseconds, as every timeout here */
#define PATIENCE (60 * SECOND) /* longer than any job here takes: what lasts longer hangs */

/* ---- verdicts ---- */

_Noreturn void fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
_Noreturn void lacks(const char *format, ...) __attribute__((format(printf, 1, 2)));
void verified(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *result_name(VkResult result);

#define CHECK(condition, ...) ((condition) ? (void)0 : fail(__FILE__, __LINE__, __VA_ARGS__))
#define EQUAL(got, expected) check_equal(__FILE__, __LINE__, #got, (uint64_t)(got), (uint64_t)(expected))
#define RESULT(call, expected) check_result(__FILE__, __LINE__, #call, (call), (expected))
#define VK(call) RESULT(call, VK_SUCCESS)
#define SAME(got, expected, size, ...) check_same(__FILE__, __LINE__, (got), (expected), (size), __VA_ARGS__)
#define ZERO(got, size, ...) check_zero(__FILE__, __LINE__, (got), (size), __VA_ARGS__)

void check_equal(const char *file, int line, const char *what, uint64_t got, uint64_t expected);
void check_result(const char *file, int line, const char *call, VkResult got, VkResult expected);
/* The first byte that differs is told; the format names what was compared. */
void check_same(const char *file, int line, const void *got, const void *expected, size_t size,
                const char *format, ...) __attribute__((format(printf, 6, 7)));
void check_zero(const char *file, int line, const void *got, size_t size, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Bytes that no other seed and no other position has: a copy that went astray shows. `at`: position of the
 * first byte in the seed's endless stream. */
void pattern(void *bytes, size_t size, uint32_t seed, size_t at);

/* malloc and calloc that end the program instead of returning NULL. */
void *bytes_new(size_t size);

/* ---- the device ---- */

struct queue {
    VkQueue handle;
    uint32_t family;
    VkQueueFlags flags;
    VkCommandPool pool; /* of its family */
};

struct gpu {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    VkPhysicalDeviceProperties properties;
    VkPhysicalDeviceMemoryProperties memory;
    struct queue queues[16]; /* every queue of every family */
    uint32_t queue_count;
    struct queue *queue;  /* the first that copies: commands go here unless told otherwise */
    struct queue *sparse; /* the first that binds sparse memory; NULL if none */
};

struct wish {
    VkPhysicalDeviceFeatures features;
    bool timeline; /* timelineSemaphore */
    bool synchronization2;
    const char *extensions[12]; /* device extensions */
};

/* Exits with 77 if the driver lacks something of the wish (NULL: nothing is wished). */
void gpu_open(struct gpu *gpu, const struct wish *wish);
void gpu_close(struct gpu *gpu);
bool gpu_has_extension(const struct gpu *gpu, const char *name);
/* An entry point of an extension; fails if there is none. */
PFN_vkVoidFunction gpu_function(const struct gpu *gpu, const char *name);

/* ---- memory and buffers ---- */

/* Memory type flags as written in the programs. */
enum {
    LOCAL = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    HOST = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
};

/* The first type among `type_bits` with these flags; fails if there is none. */
uint32_t memory_type(const struct gpu *gpu, uint32_t type_bits, VkMemoryPropertyFlags flags);
VkDeviceMemory memory_new(const struct gpu *gpu, VkDeviceSize size, uint32_t type_bits,
                          VkMemoryPropertyFlags flags);
void *memory_map(const struct gpu *gpu, VkDeviceMemory memory);

enum { /* VK_BUFFER_CREATE_ flags */
       BINDING = VK_BUFFER_CREATE_SPARSE_BINDING_BIT,
       RESIDENCY = VK_BUFFER_CREATE_SPARSE_BINDING_BIT | VK_BUFFER_CREATE_SPARSE_RESIDENCY_BIT,
       ALIASED = VK_BUFFER_CREATE_SPARSE_ALIASED_BIT,
};

struct buffer {
    VkBuffer handle;
    VkDeviceSize size;
    VkDeviceMemory memory; /* none if sparse */
    uint8_t *bytes;        /* the mapping if HOST; NULL otherwise */
};

struct buffer buffer_new(const struct gpu *gpu, VkDeviceSize size, VkMemoryPropertyFlags flags);
/* Nothing is bound. */
struct buffer buffer_sparse(const struct gpu *gpu, VkDeviceSize size, VkBufferCreateFlags flags);
VkMemoryRequirements buffer_needs(const struct gpu *gpu, VkBuffer buffer);
void buffer_free(const struct gpu *gpu, struct buffer *buffer);

/* ---- images ---- */

struct image {
    VkImage handle;
    VkImageCreateInfo info;
    VkDeviceMemory memory; /* none if sparse */
};

/* A VkImageCreateInfo with one mip, one layer, one sample, optimal tiling, usage TRANSFER_SRC|DST; a depth
 * of more than 1 makes it 3D, a height of 0 makes it 1D. Change what should differ. */
VkImageCreateInfo image_info(VkFormat format, uint32_t width, uint32_t height, uint32_t depth);
bool image_supported(const struct gpu *gpu, const VkImageCreateInfo *info);
struct image image_new(const struct gpu *gpu, const VkImageCreateInfo *info, VkMemoryPropertyFlags flags);
struct image image_sparse(const struct gpu *gpu, const VkImageCreateInfo *info);
VkMemoryRequirements image_needs(const struct gpu *gpu, VkImage image);
void image_free(const struct gpu *gpu, struct image *image);
VkExtent3D mip_extent(const struct image *image, uint32_t mip);
/* Records the change from UNDEFINED to GENERAL of the whole image. */
void image_ready(VkCommandBuffer commands, const struct image *image); /* colour */
void image_ready_aspects(VkCommandBuffer commands, const struct image *image, VkImageAspectFlags aspects);
/* Bytes of a texel of the colour formats that the programs use; fails for others. */
uint32_t texel_size(VkFormat format);
/* Where a mip lies in the packed form of an image: its mips one after the other, each with all its layers,
 * without gaps. mipLevels for `mip` gives the size of all. */
VkDeviceSize packed_offset(const struct image *image, uint32_t mip);
/* Records the copy of a whole image (colour) to or from its packed form at the start of a buffer. */
void image_upload(VkCommandBuffer commands, const struct image *image, const struct buffer *from);
void image_download(VkCommandBuffer commands, const struct image *image, const struct buffer *to);

/* ---- commands ---- */

VkCommandBuffer commands_begin(const struct gpu *gpu);
VkCommandBuffer commands_for(const struct gpu *gpu, const struct queue *queue);
/* Everything recorded before is done and seen by everything recorded after, the host too. */
void commands_barrier(VkCommandBuffer commands);
/* Ends, submits to gpu->queue, waits, frees. */
void commands_run(const struct gpu *gpu, VkCommandBuffer commands);
/* One copy between buffers, submitted and waited for. */
void copy_now(const struct gpu *gpu, VkBuffer from, VkDeviceSize from_offset, VkBuffer to,
              VkDeviceSize to_offset, VkDeviceSize size);
/* Submits to a queue with a fence and waits for it (PATIENCE). */
VkResult submit_wait(const struct gpu *gpu, VkQueue queue, const VkSubmitInfo *submit);
VkFence fence_new(const struct gpu *gpu, bool signalled);
VkSemaphore semaphore_new(const struct gpu *gpu); /* binary */
VkSemaphore timeline_new(const struct gpu *gpu, uint64_t value);

/* ---- jobs ---- */

/* A semaphore, and its value if it is a timeline. */
struct point {
    VkSemaphore semaphore;
    uint64_t value;
};

/* A submission: commands (they are ended here) and points, up to the first without a semaphore. */
struct job {
    VkCommandBuffer commands;
    struct point waits[16], signals[16];
    VkFence fence;
};
/* The wish must have `synchronization2`. */
VkResult queue_submit(const struct queue *queue, const struct job *job);
/* The same points around binds; `info` has nothing but these. */
VkResult queue_bind(const struct queue *queue, const struct job *job, const VkBindSparseInfo *info);
VkEvent event_new(const struct gpu *gpu);
/* Records a wait for an event that `set_by` sets; all writes before it are seen. */
void wait_event(VkCommandBuffer commands, VkEvent event, VkPipelineStageFlags set_by);
/* Commands that do not go on before the host sets the event. A binary semaphore may be waited for only when
 * all that its signal depends on is submitted, so a timeline that the host signals later cannot hold it. */
VkCommandBuffer commands_held(const struct gpu *gpu, const struct queue *queue, VkEvent event);
uint64_t timeline_value(const struct gpu *gpu, VkSemaphore timeline);
void timeline_signal(const struct gpu *gpu, VkSemaphore timeline, uint64_t value);
VkResult timeline_wait(const struct gpu *gpu, VkSemaphore timeline, uint64_t value, uint64_t timeout);

/* ---- what leaves the device ---- */

/* A buffer whose memory can be exported as `type`; and one on memory of another device, whose descriptor it
 * takes. */
struct buffer buffer_exported(const struct gpu *gpu, VkDeviceSize size, VkMemoryPropertyFlags flags,
                              VkExternalMemoryHandleTypeFlagBits type);
struct buffer buffer_imported(const struct gpu *gpu, VkDeviceSize size, VkMemoryPropertyFlags flags,
                              VkExternalMemoryHandleTypeFlagBits type, int fd);
int buffer_fd(const struct gpu *gpu, const struct buffer *buffer, VkExternalMemoryHandleTypeFlagBits type);
VkSemaphore semaphore_exported(const struct gpu *gpu, VkSemaphoreType kind,
                               VkExternalSemaphoreHandleTypeFlagBits type);
/* -1 if it is a sync file of what is done already. */
int semaphore_fd(const struct gpu *gpu, VkSemaphore semaphore, VkExternalSemaphoreHandleTypeFlagBits type);
/* Takes the descriptor; a sync file is the semaphore's payload for one wait. */
void semaphore_import(const struct gpu *gpu, VkSemaphore semaphore,
                      VkExternalSemaphoreHandleTypeFlagBits type, int fd);

/* ---- another process ---- */

/* This program started once more, and a socket to it. Both ends go through the same steps. */
struct peer {
    int socket;
    int child; /* its process id; 0 in the child */
};

/* The first call of a main that has a peer, before Vulkan is used. */
struct peer peer_start(char **arguments);
/* Gives a descriptor away (-1: none), and takes one. */
void peer_send(const struct peer *peer, int fd);
int peer_receive(const struct peer *peer);
/* Comes back when the other end calls it too, from the same step. */
void peer_meet(const struct peer *peer, const char *step);
/* The last call: the first process fails unless the child ended with 0. */
void peer_end(struct peer *peer);

/* ---- sparse memory ---- */

/* Binds on gpu->sparse with a fence and waits for it. */
void sparse_bind(const struct gpu *gpu, const VkBindSparseInfo *info);
void sparse_bind_buffer(const struct gpu *gpu, VkBuffer buffer, const VkSparseMemoryBind *binds,
                        uint32_t count);

/* Binds the buffer's blocks first, first + step, ... to the same offsets of `memory` (VK_NULL_HANDLE: unbinds
 * them). The size of a block is the alignment that buffer_needs tells. */
void bind_every(const struct gpu *gpu, const struct buffer *buffer, VkDeviceMemory memory, uint32_t first,
                uint32_t step);

/* How a sparse image with one aspect, the colour, is cut into blocks. */
struct blocks {
    VkSparseImageMemoryRequirements needs;
    VkExtent3D extent; /* of one block, in texels */
    VkDeviceSize size; /* of one block, in bytes */
    uint32_t tail;     /* the first mip in the mip tail; mipLevels if there is none */
    uint32_t tails;    /* 0, 1 or one per layer */
    uint32_t type_bits;
};

/* One block of one mip and layer; x, y, z count blocks. */
struct place {
    uint32_t mip, layer, x, y, z;
};
typedef bool choice(const struct place *place);

/* Whether the format's properties name block extents for such an image; the feature is the wish's affair. */
bool blocks_supported(const struct gpu *gpu, const VkImageCreateInfo *info);
struct blocks blocks_of(const struct gpu *gpu, const struct image *image);
/* How many blocks a mip of one layer has in each direction. */
VkExtent3D blocks_in(const struct image *image, const struct blocks *blocks, uint32_t mip);
/* Bytes of memory that all blocks, or all mip tails, need. */
VkDeviceSize blocks_size(const struct image *image, const struct blocks *blocks);
VkDeviceSize tails_size(const struct blocks *blocks);
/* Binds the chosen blocks (NULL: all) to `memory`, one after the other from `offset`; a memory of
 * VK_NULL_HANDLE unbinds them. Waits. */
void bind_blocks(const struct gpu *gpu, const struct image *image, const struct blocks *blocks,
                 VkDeviceMemory memory, VkDeviceSize offset, choice *chosen);
void bind_tails(const struct gpu *gpu, const struct image *image, const struct blocks *blocks,
                VkDeviceMemory memory, VkDeviceSize offset);
/* In packed forms of an image: the chosen blocks' texels in `to` become those in `from` (NULL: zero). The
 * mip tail of a layer is chosen by the place {blocks->tail, layer, 0, 0, 0}. */
void packed_take(const struct image *image, const struct blocks *blocks, uint8_t *to, const uint8_t *from,
                 choice *chosen);

#endif
