// resize: bilinear interpolation of maps (N, h, w) to resized (N, H, W), C-contiguous; the border repeats.
//
//     half pixel   source = (target + 1/2) * n_in / n_out - 1/2
//     corners      source = target * (n_in - 1) / (n_out - 1), or 0 where n_out is 1
//
// A thread owns one pixel (row, column) of up to MAPS_A_BLOCK maps: it works out the coordinates once.
// blockIdx.x counts groups of maps, then tiles of rows, then tiles of columns.

#ifndef REAL
#define REAL float
#endif

#define MAPS_A_BLOCK 16

struct Sample {
    long long low, high;  // the two sources
    REAL fraction;        // of the way from low to high
};

__device__ Sample sample(long long target, long long n_in, long long n_out, long long corners)
{
    // source = numerator / denominator: integers, so nothing is rounded before the fraction
    long long numerator = corners ? target * (n_in - 1) : (2 * target + 1) * n_in - n_out;
    long long denominator = corners ? (n_out > 1 ? n_out - 1 : 1) : 2 * n_out;
    if (numerator < 0)
        numerator = 0;
    if (numerator > (n_in - 1) * denominator)
        numerator = (n_in - 1) * denominator;

    Sample s;
    s.low = numerator / denominator;
    s.high = s.low + 1 < n_in ? s.low + 1 : s.low;
    s.fraction = (REAL)(numerator % denominator) / (REAL)denominator;
    return s;
}

__device__ REAL interpolate(REAL low, REAL high, REAL fraction)
{
    return low + fraction * (high - low);
}

extern "C" __global__ void resize(const REAL *maps, REAL *resized, long long n_maps, long long h, long long w,
                                  long long height, long long width, long long corners)
{
    const long long column_tiles = (width + blockDim.x - 1) / blockDim.x;
    const long long row_tiles = (height + blockDim.y - 1) / blockDim.y;
    const long long column = blockIdx.x % column_tiles * blockDim.x + threadIdx.x;
    const long long row = blockIdx.x / column_tiles % row_tiles * blockDim.y + threadIdx.y;
    const long long first = blockIdx.x / column_tiles / row_tiles * MAPS_A_BLOCK;
    if (column >= width || row >= height)
        return;

    const Sample x = sample(column, w, width, corners);
    const Sample y = sample(row, h, height, corners);
    for (long long n = first; n < first + MAPS_A_BLOCK && n < n_maps; ++n) {
        const REAL *low = maps + (n * h + y.low) * w;
        const REAL *high = maps + (n * h + y.high) * w;
        resized[(n * height + row) * width + column] =
            interpolate(interpolate(low[x.low], low[x.high], x.fraction),
                        interpolate(high[x.low], high[x.high], x.fraction), y.fraction);
    }
}
