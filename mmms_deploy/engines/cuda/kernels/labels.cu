// Decides between objects: enlarges the logits of several rows to the image's size, and writes which object's are the
// largest at every pixel, a byte each.
//
// Enlarging is two resizes in a row, as two tables: for every output row and column the first input pixel, and the
// weights of that pixel and of those after it (mmms_deploy/imaging/resize_weights.py). All arithmetic is float32, every
// product and sum one rounding (fma), columns first: the same numbers on every GPU and for every compiler.
//
// A thread computes one column of ROWS rows, for all objects; the 32 threads of a warp are 32 neighbours in a row, and
// so are the bytes that they write.

typedef unsigned char u8;

#define ROWS 4

__device__ __forceinline__ float across(const float *row, int first, int width, const float *weights, int taps)
{
    float sum = 0.0f;
    for (int tap = 0; tap < taps; ++tap)
        sum = __fmaf_rn(__ldg(weights + tap), __ldg(row + min(first + tap, width - 1)), sum);
    return sum;
}

// The rows of the image are those from `top` on, `rows` of them.
extern "C" __global__ void __launch_bounds__(256) labels(
    const float *planes,                                   // (R, height, width)
    int height, int width,
    const int *order,                                      // (R): the planes, object by object
    const int *ends,                                       // (groups): where the planes of each object end in it
    const int *numbers,                                    // (groups): the number of each object
    int groups,
    const int *row_first, const float *row_weights, int row_taps,           // (all rows), (all rows, taps)
    const int *column_first, const float *column_weights, int column_taps,  // (columns), (columns, taps)
    int top, int rows, int columns,
    u8 *found)                                             // (rows, columns)
{
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int start = (blockIdx.y * blockDim.y + threadIdx.y) * ROWS;
    if (column >= columns || start >= rows)
        return;
    const int left = __ldg(column_first + column);
    const float *weights = column_weights + (size_t)column * column_taps;
    int upper[ROWS], number[ROWS];
    const float *down[ROWS];
    float best[ROWS];
#pragma unroll
    for (int line = 0; line < ROWS; ++line) {
        // Lines below the last one are computed as the last one is, and not written.
        const int row = top + min(start + line, rows - 1);
        upper[line] = __ldg(row_first + row);
        down[line] = row_weights + (size_t)row * row_taps;
        best[line] = -__int_as_float(0x7f800000);
        number[line] = 0;
    }
    int place = 0;
    for (int group = 0; group < groups; ++group) {
        const int end = __ldg(ends + group);
        float most[ROWS];
#pragma unroll
        for (int line = 0; line < ROWS; ++line)
            most[line] = -__int_as_float(0x7f800000);
        for (; place < end; ++place) {
            const float *plane = planes + (size_t)__ldg(order + place) * height * width;
#pragma unroll
            for (int line = 0; line < ROWS; ++line) {
                float sum = 0.0f;
                for (int tap = 0; tap < row_taps; ++tap) {
                    const float *row = plane + (size_t)min(upper[line] + tap, height - 1) * width;
                    sum = __fmaf_rn(__ldg(down[line] + tap), across(row, left, width, weights, column_taps), sum);
                }
                most[line] = fmaxf(most[line], sum);
            }
        }
        // The objects come in the order in which they win a tie.
#pragma unroll
        for (int line = 0; line < ROWS; ++line)
            if (most[line] > best[line]) {
                best[line] = most[line];
                number[line] = __ldg(numbers + group);
            }
    }
#pragma unroll
    for (int line = 0; line < ROWS; ++line)
        if (start + line < rows)
            found[(size_t)(start + line) * columns + column] = (u8)number[line];
}
