// Finishes an answer: enlarges the network's map to the image's size and writes where it is above a limit, as bits.
//
// Enlarging is the resize rule of the bundle, as two tables: for every output row and column the first input pixel, and
// the weights of that pixel and of those after it (mmms_deploy/imaging/resize_weights.py). All arithmetic is float32,
// every product and sum one rounding (fma), columns first: the same numbers on every GPU and for every compiler.
//
// A thread computes one column of ROWS rows; the 32 threads of a warp are 32 neighbours in a row, and their bits one
// word: bit 0 is the leftmost pixel.

typedef unsigned int u32;
typedef unsigned short u16;

#define ROWS 4

__device__ __forceinline__ float widened(const float *map, int place) { return __ldg(map + place); }

// float16; written so, because a header for it is not at hand where NVRTC alone is.
struct Half { u16 bits; };
__device__ __forceinline__ float widened(const Half *map, int place)
{
    u16 bits = __ldg(reinterpret_cast<const u16 *>(map) + place);
    float number;
    asm("cvt.f32.f16 %0, %1;" : "=f"(number) : "h"(bits));
    return number;
}

// bfloat16 is the upper half of a float32.
struct Brain { u16 bits; };
__device__ __forceinline__ float widened(const Brain *map, int place)
{
    return __uint_as_float((u32)__ldg(reinterpret_cast<const u16 *>(map) + place) << 16);
}

template <typename T>
__device__ __forceinline__ float across(const T *row, int first, int width, const float *weights, int taps)
{
    float sum = 0.0f;
    for (int tap = 0; tap < taps; ++tap)
        sum = __fmaf_rn(__ldg(weights + tap), widened(row, min(first + tap, width - 1)), sum);
    return sum;
}

template <typename T>
__device__ __forceinline__ void finish(const T *map, int height, int width, const int *row_first,
                                       const float *row_weights, int row_taps, const int *column_first,
                                       const float *column_weights, int column_taps, int rows, int columns, float limit,
                                       u32 *bits, int words)
{
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    int start = (blockIdx.y * blockDim.y + threadIdx.y) * ROWS;
    bool inside = column < columns;
    int first = inside ? __ldg(column_first + column) : 0;
    const float *across_weights = column_weights + (inside ? column * column_taps : 0);
    for (int row = start; row < min(start + ROWS, rows); ++row) {
        int top = __ldg(row_first + row);
        float sum = 0.0f;
        for (int tap = 0; tap < row_taps; ++tap) {
            const T *source = map + min(top + tap, height - 1) * width;
            float value = across(source, first, width, across_weights, column_taps);
            sum = __fmaf_rn(__ldg(row_weights + row * row_taps + tap), value, sum);
        }
        // The condition of the loop is the same for a whole warp, whose threads share their rows.
        u32 word = __ballot_sync(0xffffffffu, inside && sum > limit);
        if ((threadIdx.x & 31) == 0 && (column >> 5) < words)
            bits[row * words + (column >> 5)] = word;
    }
}

#define FINISH(NAME, TYPE)                                                                                             \
    extern "C" __global__ void __launch_bounds__(256) NAME(                                                            \
        const TYPE *map, int height, int width, const int *row_first, const float *row_weights, int row_taps,          \
        const int *column_first, const float *column_weights, int column_taps, int rows, int columns, float limit,     \
        u32 *bits, int words)                                                                                          \
    {                                                                                                                  \
        finish(map, height, width, row_first, row_weights, row_taps, column_first, column_weights, column_taps, rows,  \
               columns, limit, bits, words);                                                                           \
    }

FINISH(answer_float32, float)
FINISH(answer_float16, Half)
FINISH(answer_bfloat16, Brain)
