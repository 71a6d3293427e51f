/* A CUDA driver without a GPU: it loads every kernel, and writes down what each launch and each encoding of a
 * tensor map was handed. It refuses both when asked to.
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

struct log {
  char text[1 << 20];
  size_t length;
};
static struct log launched, encoded;
static CUresult refusal_of_launches, refusal_of_maps;
static int unwatched;
static char context;

static void put(struct log *log, const char *format, ...) {
  va_list values;
  if (unwatched) return;
  va_start(values, format);
  log->length += vsnprintf(log->text + log->length, sizeof log->text - log->length, format, values);
  va_end(values);
  if (log->length >= sizeof log->text) {
    fprintf(stderr, "the stub driver's log is full\n");
    abort();
  }
}

static const char *take(struct log *log) {
  static char taken[sizeof log->text];
  memcpy(taken, log->text, log->length + 1);
  log->text[0] = 0;
  log->length = 0;
  return taken;
}

/* The launches since the last call, one a line, and the tensor maps that were encoded. */
const char *stub_launches(void) { return take(&launched); }
const char *stub_maps(void) { return take(&encoded); }

/* Whether nothing is written down: for whoever times many launches. */
void stub_unwatched(int yes) { unwatched = yes; }

/* From now on launches, or encodings, answer with this. */
void stub_refuse(int launches, int maps) {
  refusal_of_launches = launches;
  refusal_of_maps = maps;
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
  if (refusal_of_launches) return refusal_of_launches;
  if (config->sharedMemBytes > 48 * 1024 && config->sharedMemBytes > (unsigned)function->dynamic_shared)
    return CUDA_ERROR_INVALID_VALUE;
  if (unwatched) return CUDA_SUCCESS; /* before the loop over every byte, which is 1 us for a launch with tensor maps */
  put(&launched, "function=%p grid=%u,%u,%u block=%u,%u,%u shared=%u stream=%p attributes=", handle, config->gridDimX,
      config->gridDimY, config->gridDimZ, config->blockDimX, config->blockDimY, config->blockDimZ,
      config->sharedMemBytes, (void *)config->hStream);
  for (unsigned i = 0; i < config->numAttrs; i++) /* every attribute in use begins with an int */
    put(&launched, "%s%d:%d", i ? "," : "", config->attrs[i].id, config->attrs[i].value.programmaticStreamSerializationAllowed);
  put(&launched, " parameters=");
  for (int i = 0; i < function->parameters; i++) {
    put(&launched, i ? "," : "");
    for (uint32_t j = 0; j < function->size[i]; j++) put(&launched, "%02x", ((unsigned char *)parameters[i])[j]);
  }
  put(&launched, "\n");
  return CUDA_SUCCESS;
}

/* The map holds what it was made of, so that two maps differ where their arguments do. */
CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *base,
                                const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  static const cuuint32_t widths[] = {0, 32, 64, 128}; /* bytes, by swizzle */
  cuuint32_t size = type == CU_TENSOR_MAP_DATA_TYPE_FLOAT32 ? 4 : 2;
  put(&encoded, "base=%p type=%d sizes=%llu,%llu stride=%llu box=%u,%u swizzle=%d promotion=%d fill=%d\n", base, type,
      (unsigned long long)sizes[0], (unsigned long long)sizes[1], (unsigned long long)strides[0], box[0], box[1],
      swizzle, promotion, fill);
  if (refusal_of_maps) return refusal_of_maps;
  if (rank != 2 || !base || (uintptr_t)base % 16 || !sizes[0] || !sizes[1] || strides[0] % 16 ||
      strides[0] < sizes[0] * size || box[0] > 256 || box[1] > 256 || box[0] * size % 16 || steps[0] != 1 || steps[1] != 1)
    return CUDA_ERROR_INVALID_VALUE;
  if (type != CU_TENSOR_MAP_DATA_TYPE_FLOAT32 && type != CU_TENSOR_MAP_DATA_TYPE_FLOAT16 &&
      type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16)
    return CUDA_ERROR_INVALID_VALUE;
  if (swizzle && box[0] * size > widths[swizzle]) return CUDA_ERROR_INVALID_VALUE;
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
