/* A CUDA driver without a GPU: it loads every kernel, and writes down what each launch was handed.
 *
 * As with the real one, the layout of a kernel's parameters comes from its cubin, and a tensor map that a GPU could not
 * use is refused. Device 0 is an sm_90, device 1 an sm_80. Memory is the host's, so pointers pass as they are.
 */
#include <cuda.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES 2
#define MOST_PARAMETERS 64
#define KPARAM_INFO 0x17 /* in .nv.info.<kernel>: one parameter's ordinal, offset and size */
#define SIZED_VALUE 4    /* the form of a record that is followed by `size` bytes */

struct function {
  int parameters;
  uint32_t size[MOST_PARAMETERS];
  int dynamic_shared;
};

static char written[1 << 20];
static size_t length;
static char context;

static void put(const char *format, ...) {
  va_list values;
  va_start(values, format);
  length += vsnprintf(written + length, sizeof written - length, format, values);
  va_end(values);
  if (length >= sizeof written) {
    fprintf(stderr, "the stub driver's log is full\n");
    abort();
  }
}

/* The launches since the last call, one a line. */
const char *stub_launches(void) {
  static char taken[sizeof written];
  memcpy(taken, written, length + 1);
  written[0] = 0;
  length = 0;
  return taken;
}

static const Elf64_Shdr *section(const char *image, const char *prefix, const char *name) {
  const Elf64_Ehdr *head = (const Elf64_Ehdr *)image;
  const Elf64_Shdr *all = (const Elf64_Shdr *)(image + head->e_shoff);
  const char *names = image + all[head->e_shstrndx].sh_offset;
  for (int i = 0; i < head->e_shnum; i++) {
    const char *found = names + all[i].sh_name;
    if (!strncmp(found, prefix, strlen(prefix)) && !strcmp(found + strlen(prefix), name)) return &all[i];
  }
  return NULL;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  *module = (CUmodule)image; /* it outlives its functions: Triton keeps what it compiled */
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  const char *image = (const char *)module;
  const Elf64_Shdr *info = section(image, ".nv.info.", name);
  if (!info) return CUDA_ERROR_NOT_FOUND;
  struct function *made = calloc(1, sizeof *made);
  for (const char *p = image + info->sh_offset, *end = p + info->sh_size; p < end;) {
    uint16_t size = *(const uint16_t *)(p + 2);
    if (p[0] == SIZED_VALUE && p[1] == KPARAM_INFO) {
      int ordinal = *(const uint16_t *)(p + 8);
      if (ordinal >= MOST_PARAMETERS) return CUDA_ERROR_INVALID_IMAGE;
      made->size[ordinal] = *(const uint32_t *)(p + 12) >> 18;
      if (ordinal >= made->parameters) made->parameters = ordinal + 1;
    }
    p += 4 + (p[0] == SIZED_VALUE ? size : 0);
  }
  *function = (CUfunction)made;
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction handle, void **parameters, void **extra) {
  struct function *function = (struct function *)handle;
  if (config->sharedMemBytes > 48 * 1024 && config->sharedMemBytes > (unsigned)function->dynamic_shared)
    return CUDA_ERROR_INVALID_VALUE;
  put("function=%p grid=%u,%u,%u block=%u,%u,%u shared=%u stream=%p attributes=", handle, config->gridDimX,
      config->gridDimY, config->gridDimZ, config->blockDimX, config->blockDimY, config->blockDimZ,
      config->sharedMemBytes, (void *)config->hStream);
  for (unsigned i = 0; i < config->numAttrs; i++) /* every attribute in use begins with an int */
    put("%s%d:%d", i ? "," : "", config->attrs[i].id, config->attrs[i].value.programmaticStreamSerializationAllowed);
  put(" parameters=");
  for (int i = 0; i < function->parameters; i++) {
    put(i ? "," : "");
    for (uint32_t j = 0; j < function->size[i]; j++) put("%02x", ((unsigned char *)parameters[i])[j]);
  }
  put("\n");
  return CUDA_SUCCESS;
}

/* The map holds what it was made of, so that two maps differ where their arguments do. */
CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *base,
                                const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  static const cuuint32_t widths[] = {0, 32, 64, 128}; /* bytes, by swizzle */
  if (rank != 2 || (uintptr_t)base % 16 || strides[0] % 16 || box[0] > 256 || box[1] > 256)
    return CUDA_ERROR_INVALID_VALUE;
  if (swizzle && box[0] * 2 > widths[swizzle]) return CUDA_ERROR_INVALID_VALUE;
  uint64_t made[16] = {(uintptr_t)base, type,     sizes[0], sizes[1],   strides[0], box[0],    box[1],
                       steps[0],        steps[1], swizzle,  interleave, promotion,  fill};
  memcpy(map, made, sizeof *map);
  return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) ((struct function *)function)->dynamic_shared = value;
  return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
  *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = device ? 8 : 9; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = device ? 166912 : 232448; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = device ? 108 : 132; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    default: *value = 65536;
  }
  return CUDA_SUCCESS;
}

CUresult cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr pointer) {
  if (attribute != CU_POINTER_ATTRIBUTE_DEVICE_POINTER) return CUDA_ERROR_INVALID_VALUE;
  *(CUdeviceptr *)value = pointer;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  if (ordinal < 0 || ordinal >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) { *count = DEVICES; return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = 13020; return CUDA_SUCCESS; }
CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *current) { *current = (CUcontext)&context; return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext wanted) { return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *held, CUdevice device) { return cuCtxGetCurrent(held); }
CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config) { return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char **words) { *words = "refused by the stub driver"; return CUDA_SUCCESS; }

/* Triton's module links against these, and calls them in no test. */
CUresult cuCtxGetLimit(size_t *value, CUlimit limit) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuCtxSetLimit(CUlimit limit, size_t value) { return CUDA_ERROR_NOT_SUPPORTED; }
