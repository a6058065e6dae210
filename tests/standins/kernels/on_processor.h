// What a kernel's source needs of CUDA C, in plain C++: its threads run one after the other.
//
// For kernels whose threads neither wait for each other nor share memory.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(most)

struct Size3 {
    int x, y, z;
};
static Size3 gridDim, blockDim, blockIdx, threadIdx;

using std::max;
using std::min;

template <typename T> static T __ldg(const T *place) { return *place; }
static float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fdiv_rn(float a, float b) { return a / b; }
static float __int_as_float(int bits)
{
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

template <typename... Types, std::size_t... Places>
static void run(void (*kernel)(Types...), const int *shape, void **arguments, std::index_sequence<Places...>)
{
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {shape[3], shape[4], shape[5]};
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
                for (threadIdx.z = 0; threadIdx.z < blockDim.z; ++threadIdx.z)
                    for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y)
                        for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x)
                            kernel(*static_cast<std::remove_reference_t<Types> *>(arguments[Places])...);
}

template <typename... Types> static void launch(void (*kernel)(Types...), const int *shape, void **arguments)
{
    run(kernel, shape, arguments, std::index_sequence_for<Types...>());
}

#define LAUNCHED(NAME)                                                                                                 \
    extern "C" void launch_##NAME(const int *shape, void **arguments) { launch(NAME, shape, arguments); }
