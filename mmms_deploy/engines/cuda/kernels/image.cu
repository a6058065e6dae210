// Resizes an image and normalises it: (H0, W0, C) bytes or float32 with the channels last -> (C, H, W) float32.
//
// Two passes, each a sum of products with a table of weights. The rows of the image come in bands, from top to bottom.
// image_columns_* brings the rows of a band to their new width. image_lines adds them to the lines of the result that
// they belong to, and normalises a line once it has its last row. Every sum takes its terms one by one, in the order of
// the pixels, so that the result is the same bits however the image is cut into bands. Products and sums are rounded one
// by one (no fused multiply-add): NumPy computes the same bits.
//
// Neighbouring threads compute neighbouring columns. They read neighbouring windows of a row, of which a warp uses
// every byte, and write float32 side by side, because the rows between the two passes have their channels apart.

// The sum along one row, for one column of the result and one channel.
template <typename Number>
__device__ __forceinline__ void narrow(
    const Number *__restrict__ pixels,   // (rows, width, channels)
    float *__restrict__ narrowed,        // (rows, channels, columns)
    const int *__restrict__ first,       // (columns): the first pixel of each column of the result
    const float *__restrict__ weights,   // (taps, columns): of that pixel and of those after it
    int rows, int width, int channels, int columns, int taps)
{
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = blockIdx.y * blockDim.y + threadIdx.y;
    const int channel = blockIdx.z;
    if (column >= columns || row >= rows)
        return;
    const int start = first[column];
    const int count = min(taps, width - start);  // places beyond the last pixel have the weight 0
    const Number *source = pixels + (row * width + start) * channels + channel;
    const float *weight = weights + column;
    float sum = 0.0f;
    for (int tap = 0; tap < count; ++tap) {
        sum = __fadd_rn(sum, __fmul_rn(*weight, static_cast<float>(*source)));
        source += channels;
        weight += columns;
    }
    narrowed[(row * channels + channel) * columns + column] = sum;
}

extern "C" __global__ void image_columns_uint8(
    const unsigned char *pixels, float *narrowed, const int *first, const float *weights,
    int rows, int width, int channels, int columns, int taps)
{
    narrow(pixels, narrowed, first, weights, rows, width, channels, columns, taps);
}

extern "C" __global__ void image_columns_float32(
    const float *pixels, float *narrowed, const int *first, const float *weights,
    int rows, int width, int channels, int columns, int taps)
{
    narrow(pixels, narrowed, first, weights, rows, width, channels, columns, taps);
}

// Adds the rows [top, top + rows) of the image to the lines [begin, begin + gridDim.y) of the result.
extern "C" __global__ void image_lines(
    const float *__restrict__ narrowed,  // (rows, channels, columns)
    float *__restrict__ image,           // (channels, height, columns)
    const int *__restrict__ first,       // (height): the first row of each line of the result
    const float *__restrict__ weights,   // (height, taps): of that row and of those after it
    const float *__restrict__ norm,      // (3, channels): factor, mean and standard deviation
    int begin, int top, int rows, int all_rows, int channels, int height, int columns, int taps)
{
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int line = begin + blockIdx.y;
    const int channel = blockIdx.z;
    if (column >= columns)
        return;
    const int start = first[line];
    const int end = min(start + taps, all_rows);
    const int low = max(start, top);
    const int high = min(end, top + rows);
    if (low >= high)
        return;
    float *target = image + (channel * height + line) * columns + column;
    const float *source = narrowed + ((low - top) * channels + channel) * columns + column;
    const float *weight = weights + line * taps + (low - start);
    float sum = low == start ? 0.0f : *target;
    for (int row = low; row < high; ++row) {
        sum = __fadd_rn(sum, __fmul_rn(*weight, *source));
        source += channels * columns;
        ++weight;
    }
    if (high == end) {
        sum = __fmul_rn(sum, norm[channel]);
        sum = __fsub_rn(sum, norm[channels + channel]);
        sum = __fdiv_rn(sum, norm[2 * channels + channel]);
    }
    *target = sum;
}
