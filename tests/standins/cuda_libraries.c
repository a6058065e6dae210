/* The CUDA runtime as far as ONNX Runtime's CUDA provider needs it to load a graph and to ask for its kernels: memory is
   the host's, copies copy, and kernels do nothing. What is called is written to the file that STANDIN_TRACE names.
   CUDA's headers are not needed: only handles and sizes pass through here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long handles = 4096;
static int capturing;
static void *captured;

static void trace_call(const char *call) {
  const char *path = getenv("STANDIN_TRACE");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (!file) return;
  fprintf(file, "%s%s\n", call, capturing ? " capturing" : "");
  fclose(file);
}

static int handle(const char *call, void **out) {
  trace_call(call);
  *out = (void *)++handles;
  return 0;
}

static int memory(const char *call, void **out, size_t size) {
  trace_call(call);
  *out = aligned_alloc(256, (size + 511) / 256 * 256);
  return 0;
}

/* --- an H200, by the layout of cudaDeviceProp in CUDA 12 and 13 --- */
static int properties(char *to) {
  memset(to, 0, 1024);
  strcpy(to, "stand-in");
  *(size_t *)(to + 288) = 150UL << 30; /* totalGlobalMem */
  *(size_t *)(to + 296) = 49152;       /* sharedMemPerBlock */
  *(int *)(to + 308) = 32;             /* warpSize */
  *(int *)(to + 320) = 1024;           /* maxThreadsPerBlock */
  *(int *)(to + 360) = 9;              /* major */
  *(int *)(to + 384) = *(int *)(to + 388) = 132; /* multiProcessorCount, in 13 and in 12 */
  return 0;
}
int cudaGetDeviceProperties(char *to, int device) { return properties(to); }
int cudaGetDeviceProperties_v2(char *to, int device) { return properties(to); }
int cudaGetDeviceCount(int *count) { return *count = 1, 0; }
int cudaGetDevice(int *device) { return *device = 0; }
int cudaDriverGetVersion(int *version) { return *version = 13000, 0; }
int cudaRuntimeGetVersion(int *version) { return *version = 13000, 0; }
int cudaMemGetInfo(size_t *left, size_t *all) { return *left = 140UL << 30, *all = 150UL << 30, 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 132 : attribute == 10 ? 32 : 1024;
  return 0;
}
const char *cudaGetErrorString(int error) { return "stand-in"; }
const char *cudaGetErrorName(int error) { return "stand-in"; }

/* --- memory --- */
int cudaMalloc(void **out, size_t size) { return memory("cudaMalloc", out, size); }
int cudaMallocHost(void **out, size_t size) { return memory("cudaMallocHost", out, size); }
int cudaHostAlloc(void **out, size_t size, unsigned flags) { return memory("cudaHostAlloc", out, size); }
int cudaFree(void *address) { return trace_call("cudaFree"), free(address), 0; }
int cudaFreeHost(void *address) { return trace_call("cudaFreeHost"), free(address), 0; }
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
  return trace_call("cudaMemcpy"), memmove(to, from, size), 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
  return trace_call("cudaMemcpyAsync"), memmove(to, from, size), 0;
}
int cudaMemsetAsync(void *to, int value, size_t size, void *stream) { return memset(to, value, size), 0; }

/* --- streams, events and graphs --- */
int cudaStreamCreateWithFlags(void **out, unsigned flags) { return handle("cudaStreamCreateWithFlags", out); }
int cudaEventCreate(void **out) { return handle("cudaEventCreate", out); }
int cudaEventCreateWithFlags(void **out, unsigned flags) { return handle("cudaEventCreateWithFlags", out); }
int cudaStreamBeginCapture(void *stream, int mode) {
  return trace_call("cudaStreamBeginCapture"), capturing = 1, captured = stream, 0;
}
int cudaStreamEndCapture(void *stream, void **graph) {
  capturing = 0;
  if (!getenv("STANDIN_NO_CAPTURE")) return handle("cudaStreamEndCapture", graph);
  *graph = NULL;
  return 901; /* cudaErrorStreamCaptureInvalidated */
}
int cudaStreamIsCapturing(void *stream, int *status) { return *status = capturing && stream == captured, 0; }
int cudaGraphInstantiate(void **out, void *graph) { return handle("cudaGraphInstantiate", out); }

/* --- kernels --- */
int cudaLaunchKernel(void) { return trace_call("kernel"), 0; }
int __cudaLaunchKernel(void) { return trace_call("kernel"), 0; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks) { return *blocks = 2, 0; }
void **__cudaRegisterFatBinary(void *binary) { return malloc(64); }
void __cudaRegisterFatBinaryEnd(void **binary) {}
void __cudaUnregisterFatBinary(void **binary) {}
int __cudaPopCallConfiguration(unsigned *grid, unsigned *block, size_t *shared, void **stream) {
  for (int i = 0; i < 3; i++) grid[i] = block[i] = 1;
  return *shared = 0, *stream = NULL, 0;
}
